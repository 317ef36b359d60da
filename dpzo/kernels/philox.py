"""Philox4x32-10: random words as a function of (key, counter), on any device and in any order.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). Integer arithmetic
alone, so that every device and every thread count gives the same bits; a faster kernel must give these bits too.
"""

import ctypes
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dpzo.kernels.compiled import library

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_MASK = 0xFFFFFFFF


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Four 32-bit words, as int64 tensors, for each 128-bit counter and 64-bit key.

    The tensors of ``counter`` and ``key`` are int64, hold 32-bit values and broadcast against one another.
    """
    shape = np.broadcast_shapes(*(tuple(part.shape) for part in (*counter, *key)))
    c0, c1, c2, c3 = (part.expand(shape) for part in counter)
    k0, k1 = key
    for _ in range(_ROUNDS):
        # The product of two 32-bit words wraps around int64's sign, which leaves its 64 bits right; a word's
        # upper half may hold rubbish until it is masked, because only multiplication looks at it.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0 = (p1 >> 32).bitwise_xor_(c1).bitwise_xor_(k0).bitwise_and_(_MASK)
        c2 = (p0 >> 32).bitwise_xor_(c3).bitwise_xor_(k1).bitwise_and_(_MASK)
        c1, c3 = p1, p0
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1 & _MASK, c2, c3 & _MASK


def standard_normals(start: int, count: int, *, keys: Sequence[int], stream: int, device: torch.device | str) -> Tensor:
    """Coordinates ``start .. start+count-1`` of the Gaussian vectors named (key, stream), float32, (keys, count).

    Coordinate i is a function of (key, stream, i) alone: Box-Muller on the Philox words at counter i // 4. Each key
    and ``stream`` are 64-bit integers. The words are the same bits on every device; the logarithm and the cosine may
    differ in the last place between a CPU and a GPU.
    """
    first, last = start // 4, (start + count + 3) // 4
    in_c = _in_c(len(keys) * count) if torch.device(device).type == "cpu" else None
    arguments, interleave = in_c or _REFERENCE
    uniforms, angles = arguments(first, last - first, keys, stream, device)
    # log, sqrt, cos and sin are torch's, compiled or not: a C library's would differ in the last place.
    radii = uniforms.log_().mul_(-2).sqrt_()
    cosines = angles.cos()
    normals = interleave(radii, cosines, angles.sin_())
    skip = start - 4 * first
    return normals.view(len(keys), -1)[:, skip : skip + count]


def _arguments(first: int, count: int, keys: Sequence[int], stream: int, device: torch.device | str) -> Tensor:
    """The arguments of Box-Muller's logarithms, then of its cosines: (2, 2 pairs of words, keys, counters)."""
    index = torch.arange(first, first + count, dtype=torch.int64, device=device)
    halves = torch.tensor([(key & _MASK, key >> 32) for key in keys], device=device)[:, :, None]
    words = philox(
        (
            index & _MASK,
            index >> 32,
            torch.tensor(stream & _MASK, device=device),
            torch.tensor(stream >> 32, device=device),
        ),
        (halves[:, 0], halves[:, 1]),
    )
    arguments = torch.empty(2, 2, len(keys), count, dtype=torch.float32, device=device)
    for number, word in enumerate(words):
        # 24 bits each: what float32 holds exactly. The half keeps the logarithm's argument above zero.
        arguments[number % 2, number // 2] = word >> 8
    arguments[0].add_(0.5).mul_(2.0**-24)
    arguments[1].mul_(2 * math.pi * 2.0**-24)
    return arguments


def _interleave(radii: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Radius times cosine and times sine of both pairs: four normal numbers for each counter, (keys, counters, 4)."""
    normals = torch.empty(*radii.shape[1:], 4, dtype=torch.float32, device=radii.device)
    for pair in (0, 1):
        torch.mul(radii[pair], cosines[pair], out=normals[..., 2 * pair])
        torch.mul(radii[pair], sines[pair], out=normals[..., 2 * pair + 1])
    return normals


class _Kernels(NamedTuple):
    arguments: Callable[..., Tensor]
    interleave: Callable[[Tensor, Tensor, Tensor], Tensor]


_REFERENCE = _Kernels(_arguments, _interleave)
_WORTH = 2**15  # normal numbers asked for at once: who asks for fewer is not kept waiting for a compiler
_found: list[_Kernels | None] = []  # what the first large request found, for the rest of the process


def _in_c(values: int) -> _Kernels | None:
    if not _found and values >= _WORTH:
        loaded = library(Path(__file__).with_suffix(".c"))
        kernels = None if loaded is None else _kernels(loaded)
        _found.append(kernels if kernels is not None and _same_bits(kernels) else None)
    return _found[0] if _found else None


def _kernels(loaded: ctypes.CDLL) -> _Kernels:
    u64, i64, pointer = ctypes.c_uint64, ctypes.c_int64, ctypes.c_void_p
    loaded.box_muller_arguments.argtypes = [u64, i64, pointer, i64, u64, pointer]
    loaded.box_muller_arguments.restype = None
    loaded.interleave.argtypes = [i64, pointer, pointer, pointer, pointer]
    loaded.interleave.restype = None

    def arguments(first: int, count: int, keys: Sequence[int], stream: int, device: torch.device | str) -> Tensor:
        out = torch.empty(2, 2, len(keys), count, dtype=torch.float32)
        loaded.box_muller_arguments(first, count, (u64 * len(keys))(*keys), len(keys), stream, out.data_ptr())
        return out

    def interleave(radii: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        normals = torch.empty(*radii.shape[1:], 4, dtype=torch.float32)
        planes = (part.data_ptr() for part in (radii, cosines, sines))
        loaded.interleave(radii[0].numel(), *planes, normals.data_ptr())
        return normals

    return _Kernels(arguments, interleave)


def _same_bits(kernels: _Kernels) -> bool:
    """Whether a compiler and a processor gave what they should: counters on both sides of 2**32, three keys."""
    asked = (2**32 - 150, 333, (0, 2**64 - 1, 0x243F6A8885A308D3), 2**63 + 5, "cpu")
    expected = _arguments(*asked)
    radii, angles = expected
    factors = (radii, angles, angles.sin())
    return torch.equal(expected, kernels.arguments(*asked)) and torch.equal(
        _interleave(*factors), kernels.interleave(*factors)
    )
