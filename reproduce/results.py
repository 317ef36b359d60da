"""The file of finished runs that every program of this folder keeps, and what a run took of memory."""

import resource
import sys

import torch

from synthetic.provenance import provenance
from synthetic.results import Results, key, set_aside

__all__ = ["Results", "key", "peak_memory_mib", "provenance", "set_aside"]


def peak_memory_mib(device: str) -> float:
    """The process's peak resident memory, or the GPU's peak allocation, in MiB."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
