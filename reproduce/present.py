"""From finished runs to a table: mean and 95 % interval over seeds, the paper's number beside, and a picture."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import t as student

from dpzo.printing import rounded_up
from reproduce.engine import RELATION, Cell
from reproduce.recipes import Recipe
from reproduce.results import Results
from synthetic import style

Paper = Callable[[str, str], str | None]


@dataclass(frozen=True)
class Entry:
    """One row of one task: the runs of the best clip, or none."""

    task: str
    row: str
    runs: tuple[dict[str, Any], ...]
    clip: float | None

    @property
    def accuracies(self) -> np.ndarray:
        """Test accuracies in percent, one for each seed."""
        return 100 * np.array([run["test_accuracy"] for run in self.runs])

    @property
    def half(self) -> float | None:
        """Half the width of the 95 % interval of the mean over seeds (Student's t); None for a single run."""
        if len(self.runs) < 2:
            return None
        error = self.accuracies.std(ddof=1) / np.sqrt(len(self.runs))
        return float(student.ppf(0.975, len(self.runs) - 1) * error)

    def mean(self, field: str) -> float | None:
        """Mean of a field over the runs that have it."""
        values = [run[field] for run in self.runs if run.get(field) is not None]
        return float(np.mean(values)) if values else None


def entries(cells: Sequence[Cell], results: Results) -> list[Entry]:
    """One entry for each task and row; with several clips, that of the best mean accuracy on the validation set."""
    made = []
    for task, row in dict.fromkeys((cell.task, cell.row()) for cell in cells):
        mine = [cell for cell in cells if (cell.task, cell.row()) == (task, row)]
        candidates = []
        for clip in dict.fromkeys(cell.clip for cell in mine):
            found = [results.get(asdict(cell)) for cell in mine if cell.clip == clip]
            runs = tuple(run for run in found if run is not None)
            candidates.append(Entry(task, row, runs, clip))
        made.append(max(candidates, key=lambda e: (len(e.runs), e.mean("validation_accuracy") or 0.0)))
    return made


def markdown(entries: Sequence[Entry], titles: dict[str, str], model: str, paper: Paper) -> str:
    """The table for people. Ours and the paper's stand in separate columns and are never mixed."""
    head = ["method", "task", f"{model}, here", "seeds", "epsilon spent", "noise/C", "s/step", "peak MiB", "paper*"]
    lines = [_row(head), _row(["---"] * len(head))]
    for e in entries:
        ours = "not run here"
        if e.runs:
            ours = f"{e.accuracies.mean():.1f}" + (f" ± {e.half:.1f}" if e.half is not None else "")
        cells = [e.row, titles[e.task], ours, str(len(e.runs)) if e.runs and e.runs[0].get("steps") else ""]
        epsilon = e.mean("epsilon")
        cells += ["" if epsilon is None else rounded_up(epsilon), _number(e.mean("noise_multiplier"), "{:.3f}")]
        cells += [_number(e.mean("seconds_per_step"), "{:.4f}"), _number(e.mean("peak_memory_mib"), "{:.0f}")]
        lines.append(_row([*cells, paper(e.row, e.task) or ""]))
    return "\n".join(lines) + "\n"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def table_csv(entries: Sequence[Entry], paper: Paper) -> str:
    """One line for each task and row, for programs."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    fields = ("epsilon", "noise_multiplier", "seconds_per_step", "peak_memory_mib", "n", "n_test", "d", "test_loss")
    writer.writerow(["task", "method", "runs", "clip", "accuracy", "half_width_95", *fields, "paper"])
    for e in entries:
        ours = [e.accuracies.mean() if e.runs else None, e.half]
        writer.writerow([e.task, e.row, len(e.runs), e.clip, *ours, *map(e.mean, fields), paper(e.row, e.task)])
    return out.getvalue()


def picture(entries: Sequence[Entry], titles: dict[str, str], model: str, path: str) -> None:
    """A bar chart: a group for each task, a bar for each row, whiskers for the interval."""
    shown = [e for e in entries if e.runs]
    tasks, rows = list(dict.fromkeys(e.task for e in shown)), list(dict.fromkeys(e.row for e in shown))
    colours = dict(zip(rows, ["#c9cdd4", "#9aa1ad", "#c46a1b", "#4f8ab5", style.COLOURS["DPZero"]], strict=False))
    figure, grid = style.axes(width=1.8 + 1.0 * len(shown), height=3.6)
    axes, width = grid[0, 0], 0.8 / max(1, len(rows))
    places = []
    for e in shown:
        at = tasks.index(e.task) + (rows.index(e.row) - (len(rows) - 1) / 2) * width
        places.append(at)
        mean, half = e.accuracies.mean(), e.half or 0.0
        first = e.task == tasks[0]
        axes.bar(at, mean, 0.92 * width, color=colours.get(e.row), label=e.row if first else None, zorder=2)
        if half:
            axes.errorbar(at, mean, half, color="#222", capsize=3, linewidth=1.2, zorder=3)
        axes.text(at, mean + half + 0.4, f"{mean:.1f}", ha="center", va="bottom", fontsize=9)
    tops = [e.accuracies.mean() + (e.half or 0.0) for e in shown]
    low = max(0.0, 10 * np.floor(min(e.accuracies.mean() for e in shown) / 10) - 10)
    axes.set_ylim(low, min(100.0, max(tops) + 5))
    axes.grid(axis="x", visible=False)
    axes.set_ylabel(f"test accuracy, %, from {low:g}", fontsize=9)
    if len(tasks) == 1:
        axes.set_xticks(places, [e.row.replace(", ", ",\n") for e in shown])
        axes.set_title(f"{model} on {titles[tasks[0]]}: mean and 95 % interval over seeds", fontsize=9)
    else:
        axes.set_xticks(range(len(tasks)), [titles[task] for task in tasks])
        axes.set_title(f"{model}: mean and 95 % interval over seeds", fontsize=9)
        style.legend(figure, axes)
    style.save(figure, path)


def notes(made: Sequence[Entry], chosen: Recipe) -> str:
    """What a reader must know beside the table, from the runs themselves."""
    trained = next((e.runs[0] for e in made if e.runs and e.runs[0].get("steps")), None)
    lines = [
        "Test accuracy in percent: mean ± half of the 95 % interval (Student's t) over seeds, on one fixed test set.",
        "\\* The paper's column is RoBERTa-large (355M) with 512 examples a class and 10,000 steps, mean ± standard",
        "error: another model, size and, for MR, other data (it stands beside SST-2). Zhang et al. 2024, Table 2.",
    ]
    if trained is not None:
        lines += [
            f"Trained: {', '.join(chosen.trainable)} ({trained['d']:,} coordinates"
            f"{', scaled by their activations on public text' if chosen.rescaled else ''}); "
            f"n = {trained['n']:,} records, Poisson batches of {chosen.batch_size} expected, T = {trained['steps']:,}, "
            f"step size {chosen.step_size:g}, lambda {chosen.zo_eps:g}, C {', '.join(f'{c:g}' for c in chosen.clips)}, "
            f"Gaussian directions, {'mean of the last half of the iterates' if chosen.average else 'last iterate'}.",
            f"Prompt: {trained['prompt']!r} with {', '.join(map(repr, trained['words']))}; "
            f"{trained['n_test']:,} test records, whose own sampling error (one standard error, at most "
            f"{100 * (0.25 / trained['n_test']) ** 0.5:.1f} points) is shared by all rows and not in the intervals.",
            f"Epsilon: at delta = {chosen.delta:g}, {RELATION} neighbours, Poisson sampling, PLD accountant. "
            "Noise and batches come from the operating system's entropy, so a rerun differs within the interval.",
            "Calibrated zero-shot subtracts the mean score over the training texts: it shows how much of a gain is "
            "the removal of label-word bias alone. It is not private.",
            "Where the hyper-parameters come from: reproduce/recipes.py. Choosing them on data is not accounted.",
        ]
    return "\n\n".join(["\n".join(lines[:3]), *lines[3:]]) + "\n"
