"""What the book's cells share: one setting for size and device, one style for pictures, and where results come from."""

import json
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dpzo

if TYPE_CHECKING:
    from reproduce.engine import Bench
    from reproduce.recipes import Recipe

SIZES = ("small", "laptop", "paper")
SIZE = os.environ.get("DPZO_BOOK_SIZE", "small")
DEVICE = os.environ.get("DPZO_BOOK_DEVICE", "cpu")
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#404040")  # told apart by all eyes
DASHES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (3, 1)), (0, (1, 1)))  # and in grey

if SIZE not in SIZES:
    raise dpzo.Refusal(f"DPZO_BOOK_SIZE among {', '.join(SIZES)}", SIZE, "small is the default.")

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm asks for widgets, which a page cannot have


def use_style() -> None:
    """Set matplotlib up: one palette, letters that a phone shows, white paper under the picture on dark pages too."""
    import matplotlib.pyplot as plt
    from matplotlib_inline.backend_inline import set_matplotlib_formats

    set_matplotlib_formats("svg")
    plt.rcParams.update(
        {
            "axes.prop_cycle": plt.cycler(color=PALETTE) + plt.cycler(linestyle=DASHES),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.25,
            "figure.figsize": (5.4, 3.3),
            "figure.facecolor": "white",
            "figure.constrained_layout.use": True,
            "font.size": 11,
            "legend.frameon": False,
            "legend.fontsize": 10,
            "lines.linewidth": 2,
            "savefig.facecolor": "white",
            "svg.hashsalt": "dpzo",
        }
    )


def results(name: str) -> Path:
    """Path of a committed result, ``reproduce/results/name``.

    Raises:
        Refusal: there is no such result.
    """
    roots = (Path(__file__).resolve().parents[1], Path(dpzo.__file__).resolve().parents[1])
    for root in roots:
        if (path := root / "reproduce" / "results" / name).exists():
            return path
    raise dpzo.Refusal("a committed result in reproduce/results", name, "Run its program in reproduce/ first.")


def rows(name: str) -> list[dict[str, Any]]:
    """Return the runs of a committed ``.jsonl`` file, one dict each."""
    return [json.loads(line) for line in results(name).read_text("utf-8").splitlines()]


def made_with(path: str | Path) -> str:
    """Return one sentence on how a committed ``.jsonl`` was made: runs, machine, versions, commit, time.

    Raises:
        Refusal: the file is no record of runs.
    """
    path = results(Path(path).name)
    if path.suffix != ".jsonl":
        raise dpzo.Refusal("a .jsonl of finished runs", path.name, "Name the file that the table is made of.")
    found = rows(path.name)
    made = [row["provenance"] for row in found]
    machines = {f"{m['machine']['processor']}, {m['machine']['cores']} cores, {_gpu(m['machine'])}" for m in made}
    versions = {f"Python {m['versions']['python']}, torch {m['versions']['torch']}" for m in made}
    commits = {(m["commit"] or "unknown")[:7] for m in made}
    seconds = sum(row.get("seconds") or 0 for row in found)
    time = f" in {seconds / 60:.0f} minutes of computing" if seconds >= 90 else ""
    told = f"{path.name}: {len(found)} runs{time}, on {_list(machines)}, with {_list(versions)}"
    return f"{told}, at commit {_list(commits)}."


def language_model() -> "tuple[Recipe, Bench]":
    """The language model of the book's size, with its recipe: BERT-tiny, SmolLM2-135M or RoBERTa-large.

    ``bench.records("train", seed)`` and ``bench.records("test", seed)`` are encoded sentences; ``bench.subject`` is
    what trains, ``bench.start`` its starting weights; ``bench.measure(records, "test")`` tells accuracy and loss.
    """
    from dataclasses import replace

    from dpzo.models.load import load
    from dpzo.tasks import get_task
    from reproduce.data import Data
    from reproduce.engine import Bench
    from reproduce.recipes import recipe

    chosen = recipe("laptop" if SIZE == "small" else SIZE, "bert-tiny" if SIZE == "small" else None)
    if SIZE == "small":  # seconds a run: the last norm's 256 numbers
        chosen = replace(chosen, trainable=("bert.encoder.layer.1.output.LayerNorm.*",), steps=400, step_size=2.0)
    task = get_task("sst2" if SIZE == "paper" else "mr")
    read = Data(task, None, None).read
    return chosen, Bench(load(chosen.model, device=DEVICE), task, chosen, read, DEVICE)


def glue_text(name: str, value: object) -> None:
    """Keep a value under a name for ``{glue:text}``; floats should come formatted."""
    from myst_nb import glue

    glue(name, str(value), display=False)


def _gpu(machine: dict[str, Any]) -> str:
    return str(machine["gpu"] or "no GPU")


def _list(parts: Iterable[str]) -> str:
    *others, last = sorted(parts)
    return f"{', '.join(others)} and {last}" if others else last
