"""Liu et al. 2024's figure of accuracies: zero-shot, DP fine-tuning (full, of a prefix) and the zeroth-order methods.

With no arguments: SmolLM2-135M on Rotten Tomatoes sentences; "full" then means all that is trained there, a matrix of
the last block's MLP, and the prefix stands in the last block alone. At size paper both are of the whole model. The
figure's own numbers stand beside ours and belong to RoBERTa-large.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

# Run as a file, so that the folder above is not on the path by itself.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
import typer
from scipy.stats import t as student
from transformers.utils.logging import disable_progress_bar

from dpzo import Pruning, Refusal, accounting
from dpzo.files import write_whole
from dpzo.printing import rounded_up
from reproduce import reported
from reproduce.engine import say
from reproduce.results import Results
from reproduce.stagewise import Method, Study, grid, named, plan_of, setting_of
from synthetic import style
from synthetic.report import show

ROWS = (
    Method("zero-shot", "zero-shot"),
    Method("FT", "dp-adamw", clip=1.0),
    # Far below a gradient's norm, which differs between models and blocks by factors of 1,000: each record then counts
    # by its direction alone (Bu et al. 2023).
    Method("FT-prefix", "dp-adamw-prefix", clip=1e-3),
    Method("DPZero", "dpzero"),
    Method("DP-ZOSO", "dp-zoso", stages=3),
    Method("DP-ZOPO", "dp-zopo", stages=3, keep=(0.01,), pruning=Pruning(score="synflow")),
    Method("DP-ZOPO, random mask", "dp-zopo", stages=3, keep=(0.01,), pruning=Pruning(score="random")),
)
FIRST_ORDER_GRIDS = {"dp-adamw": (3e-4, 1e-3, 3e-3, 1e-2), "dp-adamw-prefix": (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)}
# One run tells little: step sizes that differ by a factor of 3 often differ by less than two runs of one do.
TUNING_SEEDS = (1, 2, 3, 4, 5)


def main(
    size: Annotated[str, typer.Option(help="laptop, paper (RoBERTa-large, a GPU) or tiny (a test).")] = "laptop",
    task: Annotated[str, typer.Option(help="mr, or sst2, sst5, snli, mnli, trec.")] = "mr",
    data_dir: Annotated[Path | None, typer.Option(help="Read the task's data from this folder instead.")] = None,
    assets: Annotated[Path | None, typer.Option(help="Take the packaged wheels from this folder.")] = None,
    out: Annotated[Path, typer.Option(help="Where results, table and picture go.")] = Path("results"),
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Run what is not in the results yet, then print the table and draw the figure."""
    disable_progress_bar()
    try:
        name = named("dpzopo_figure", task)
        study = Study(setting_of(size), task, Results(out / f"{name}.jsonl"), data_dir, assets, device)
        made = rows(study)
        text = table(made, task) + "\n" + notes(study, made)
        write_whole(out / f"{name}.md", text)
        picture(made, study, str(out / f"{name}.png"))
        show(text)
    except Refusal as refusal:
        say(f"error: {refusal}")
        raise typer.Exit(2) from None


Row = tuple[Method, float | None, list[dict[str, Any]]]


def rows(study: Study) -> list[Row]:
    """Each method at each epsilon with its runs, one for each seed; its step size is chosen first."""
    s, made = study.setting, []
    for method in ROWS:
        if not method.private:
            made.append((method, None, [study.run(method, None, None, "test")]))
            continue
        sizes = FIRST_ORDER_GRIDS.get(method.algorithm) or grid(method)
        chosen = study.tuned(method, sizes, TUNING_SEEDS, say)
        for epsilon in s.epsilons:
            made.append((chosen, epsilon, [study.run(chosen, epsilon, seed, "test") for seed in s.seeds]))
    return made


def interval(runs: list[dict[str, Any]]) -> tuple[float, float]:
    """Mean test accuracy in percent, and half of its 95 % interval over seeds (Student's t; 0 for one run)."""
    accuracies = 100 * np.array([run["test_accuracy"] for run in runs])
    if len(runs) < 2:
        return float(accuracies.mean()), 0.0
    half = student.ppf(0.975, len(runs) - 1) * accuracies.std(ddof=1) / np.sqrt(len(runs))
    return float(accuracies.mean()), float(half)


def table(made: list[Row], task: str) -> str:
    """Ours beside the figure's."""
    like = "sst2" if task == "mr" else task
    lines = [
        "| method | epsilon | accuracy here | step size | coordinates | the figure* |",
        "|" + " --- |" * 6,
    ]
    for method, epsilon, runs in made:
        mean, half = interval(runs)
        theirs = reported.stagewise(method.name, like, epsilon)
        share = method.keep[-1] if method.keep else 1.0
        cells = [
            method.name,
            "" if epsilon is None else f"{epsilon:g}",
            f"{mean:.1f}" + (f" ± {half:.1f}" if len(runs) > 1 else ""),
            "" if method.step_size is None else f"{method.step_size:g}",
            "" if not method.private else f"{int(np.ceil(share * runs[0]['d'])):,}",
            "" if theirs is None else f"{theirs:.1f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def notes(study: Study, made: list[Row]) -> str:
    """What a reader must know beside the table."""
    s = study.setting
    n = made[-1][2][0]["n"]
    provenance = made[-1][2][0]["provenance"]
    commits = sorted({str(run["provenance"]["commit"])[:12] for _, _, runs in made for run in runs})
    clip = next(method.clip for method, _, _ in made if method.of_prefix)
    lines = [
        "Test accuracy in percent, mean ± half of the 95 % interval (Student's t) over public seeds, "
        "which set the directions; batches and noise are each run's own, training and test set the same for all.",
        "\\* Liu et al. 2024, RoBERTa-large (355M), read off their figure; for MR its SST-2 panel. Full fine-tuning in "
        "the released code clips batches, not records: no DP. Its delta is 1/n, at which our zeroth-order runs would "
        f"have epsilon = {', '.join(map(rounded_up, at_one_over_n(study, made, n)))}.",
        f"Here: {s.model}, trained {', '.join(s.trainable)}; n = {n:,}, Poisson batches of {s.batch_size} expected, "
        f"T = {s.steps:,} for every zeroth-order method (stages of T/6, T/3, T/2 with halving step sizes, no pull), "
        f"lambda = {s.zo_eps:g}, C = 1 on the derivative; the rows FT are DP-AdamW, each record's gradient clipped, in "
        f"{s.first_order_steps} steps. Epsilon at delta = {s.delta:g}, {RELATION_TEXT}, PLD accountant.",
        f"FT-prefix: {s.prefix.positions} keys and values that every token attends to, in "
        f"{'the last block alone' if s.prefix.last_only else 'every block'}, begun at those of a public text; no "
        f"weight of the model is trained, and C = {clip:g} makes each record's gradient count by its direction alone.",
        f"Step sizes: the best validation loss of a grid of factors of 3 for each method, extended while the best lies "
        f"at its end, at epsilon = {s.tuned_at:g}, mean of {len(TUNING_SEEDS)} runs at other seeds. Not accounted.",
        *([AFTERWARDS[study.task.name]] if study.task.name in AFTERWARDS else []),
        f"Made by `python reproduce/dpzopo_figure_roberta.py{study.options}`, dpzo {provenance['versions']['dpzo']} at "
        f"{', '.join(commits)}, torch {provenance['versions']['torch']}, "
        f"{provenance['machine']['processor']}, {provenance['machine']['cores']} cores.",
    ]
    return "\n\n".join(lines) + "\n"


def at_one_over_n(study: Study, made: list[Row], n: int) -> list[float]:
    """The epsilon at delta = 1/n of DPZero's runs, and so of all with its steps and batches, at each target.

    Straight from the accountant: a plan refuses such a delta, at which to publish one record in full is private.
    """
    chosen = next(method for method, _, _ in made if method.name == "DPZero")
    plans = [plan_of(chosen, study.setting, n, epsilon) for epsilon in study.setting.epsilons]
    return [accounting.epsilon(plan.event(), 1 / n, plan.relation) for plan in plans]


RELATION_TEXT = "add-remove neighbours"
AFTERWARDS = {
    "mr": (
        "What was decided after results were seen: FT-prefix's C, by the size of its gradients on validation texts; "
        "its grid, made wider downwards; and the mean over several runs, first for the rows FT, because one run had "
        "chosen a step size of 1e-4 for FT-prefix, which trains nothing, then for all, so that none is favoured. The "
        "test runs at the step sizes that one run had chosen are kept in dpzopo_figure_first_choice.jsonl."
    ),
    "trec": (
        "This task was added after the results on MR were seen, because they left little to win. Nothing but the "
        "prompt was changed for it, and nothing after its own results were seen."
    ),
}


MARKS = {
    "FT": ("s", "#5d7f3f"),
    "FT-prefix": ("D", "#97b47d"),
    "DPZero": ("o", style.COLOURS["DPZero"]),
    "DP-ZOSO": ("v", "#4f8ab5"),
    "DP-ZOPO": ("^", "#c46a1b"),
    "DP-ZOPO, random mask": ("^", "#dfa877"),
}


def picture(made: list[Row], study: Study, path: str) -> None:
    """Accuracy at each epsilon: a mark for each method, side by side, and zero-shot as a level."""
    figure, grid = style.axes(width=7.6, height=3.4)
    axes, epsilons = grid[0, 0], study.setting.epsilons
    level = interval(made[0][2])[0]
    axes.axhline(level, color="#555", linestyle=":", linewidth=1.2, label=f"zero-shot, {level:.1f}")
    for index, (name, (mark, colour)) in enumerate(MARKS.items()):
        mine = {epsilon: interval(runs) for method, epsilon, runs in made if method.name == name}
        mean, half = np.array([mine[epsilon] for epsilon in epsilons]).T
        x = np.arange(len(epsilons)) + 0.12 * (index - (len(MARKS) - 1) / 2)
        axes.errorbar(x, mean, half, fmt=mark, color=colour, elinewidth=1.2, capsize=2, markersize=6, label=name)
    axes.set_xticks(range(len(epsilons)), [f"epsilon = {epsilon:g}" for epsilon in epsilons])
    axes.grid(axis="x", visible=False)
    axes.set_ylabel("test accuracy, %")
    axes.set_title(f"{study.setting.model} on {study.task.title}: mean and 95 % interval over seeds", fontsize=9)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    style.save(figure, path)


if __name__ == "__main__":
    typer.run(main)
