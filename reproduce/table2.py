"""Table 2: zero-shot, MeZO and DPZero at epsilon = 6 and 2.

With no arguments: SmolLM2-135M on Rotten Tomatoes sentences, on a laptop's processor, with no model hub. What it
prints are our own numbers; the paper's stand beside them and belong to RoBERTa-large.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

# Run as a file, so that the folder above is not on the path by itself.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_VERBOSITY", "error")

import typer
from tqdm import tqdm
from transformers.utils.logging import disable_progress_bar

from dpzo import Refusal
from dpzo.files import write_whole
from dpzo.models.load import PACKAGED, is_hub_id, load
from dpzo.tasks import Split, Task, get_task
from reproduce import reported
from reproduce.data import Data
from reproduce.engine import METHODS, Bench, Cell, cells, say
from reproduce.present import entries, markdown, notes, picture, table_csv
from reproduce.recipes import Recipe, recipe
from reproduce.results import Results, set_aside
from synthetic.report import show

PAPER_NEEDS = """\
The paper's size trains RoBERTa-large (355M parameters) for 10,000 steps in each of 45 runs a task
(7 clip thresholds x 2 epsilons x 3 seeds, and MeZO). It needs
  - the model: FacebookAI/roberta-large from the hub, or --model FOLDER that holds it (1.4 GB);
  - the data: from the hub, or --data-dir FOLDER;
  - a GPU with 6 GiB or more (--device cuda): at the paper's 0.35 s a step on an RTX 3090, 44 hours a task.
Fewer runs: --epsilon 2 --seeds 42 --methods dpzero.
"""


def _list(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def main(
    size: Annotated[str, typer.Option(help="laptop, paper (RoBERTa-large, a GPU) or tiny (a test).")] = "laptop",
    tasks: Annotated[str | None, typer.Option(help="Such as mr or sst2,sst5,snli,mnli,rte,trec.")] = None,
    methods: Annotated[str, typer.Option(help="Any of zero-shot, calibrated, mezo, dpzero.")] = ",".join(METHODS),
    epsilon: Annotated[str | None, typer.Option(help="Privacy budgets for dpzero, such as 6,2.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Public seeds, such as 42,13,21.")] = None,
    model: Annotated[str | None, typer.Option(help="smollm2-135m, bert-tiny, a folder, or a hub id.")] = None,
    prompt: Annotated[str | None, typer.Option(help="A causal prompt: sentiment or paper.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Read the tasks' data from this folder instead.")] = None,
    assets: Annotated[Path | None, typer.Option(help="Take the packaged wheels from this folder.")] = None,
    out: Annotated[Path, typer.Option(help="Where results, table and picture go.")] = Path("results"),
    resume: Annotated[bool, typer.Option(help="Go on from the finished runs in --out, or set them aside.")] = True,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Train and test every cell of Table 2 that is not in the results yet, then print the table.

    Stop it at any time: finished runs are kept, and the same command goes on.
    """
    disable_progress_bar()  # of loading weights: it takes a tenth of a second
    try:
        chosen = _choose(recipe(size, model), tasks, epsilon, seeds, prompt)
        _run(size, chosen, _methods(methods), data_dir, assets, out, resume, device)
    except Refusal as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        print(f"\nStopped. Finished runs are in {out}; the same command goes on from there.", file=sys.stderr)
        raise typer.Exit(130) from None


def _choose(r: Recipe, tasks: str | None, epsilon: str | None, seeds: str | None, prompt: str | None) -> Recipe:
    try:
        epsilons = tuple(float(e) for e in _list(epsilon) or r.epsilons)
        numbers = tuple(int(s) for s in _list(seeds) or r.seeds)
    except ValueError as error:
        raise Refusal("numbers separated by commas", error, "Write --epsilon 6,2 --seeds 42,13,21.") from None
    for value in epsilons:
        if not 0 < value < float("inf"):
            raise Refusal("each epsilon to be a positive finite number", value, "Write --epsilon 6,2.")
    if any(s < 0 for s in numbers):
        raise Refusal("seeds of 0 or more", seeds, "Write --seeds 42,13,21.")
    names = tuple(dict.fromkeys(get_task(name).name for name in _list(tasks) or r.tasks))
    known = dict.fromkeys(key for name in names for key in get_task(name).causal)
    if prompt is not None and prompt not in known:
        raise Refusal(f"a prompt out of {', '.join(known)}", repr(prompt), "Name one that a chosen task has.")
    # A seed given twice is one run, not two that agree.
    epsilons, numbers = tuple(dict.fromkeys(epsilons)), tuple(dict.fromkeys(numbers))
    return replace(r, tasks=names, epsilons=epsilons, seeds=numbers, prompt=prompt or r.prompt)


def _methods(text: str) -> list[str]:
    asked = _list(text) or []
    if unknown := [m for m in asked or [text] if m not in METHODS]:
        raise Refusal(f"methods out of {', '.join(METHODS)}", repr(unknown[0]), "Name some of these.")
    return [m for m in METHODS if m in asked]


def _run(
    size: str,
    chosen: Recipe,
    methods: Sequence[str],
    data_dir: Path | None,
    assets: Path | None,
    out: Path,
    resume: bool,
    device: str,
) -> None:
    if size == "paper":
        say(PAPER_NEEDS)
    if data_dir is None and (asked := [name for name in chosen.tasks if name != "mr"]):
        say(f"Asking the Hugging Face hub for {', '.join(asked)}; without a network it gives up in half a minute.")
    reads = {name: Data(get_task(name), data_dir, assets) for name in chosen.tasks}
    results = Results(out / "table2.jsonl", resume=resume)
    if not resume:
        set_aside(out / "ledgers")
    for note in results.notes:
        say(note)
    everything: list[Cell] = []
    for name, data in reads.items():
        told = _prompt_of(chosen, get_task(name))
        everything += cells(size, told, name, data.told, methods, chosen.epsilons)
    left = [cell for cell in everything if results.get(asdict(cell)) is None]
    if left:
        say(f"{len(everything) - len(left)} of {len(everything)} runs are finished; {len(left)} to go.")
        if chosen.model not in PACKAGED and is_hub_id(chosen.model):
            say(f"Asking the Hugging Face hub for {chosen.model}; without a network it gives up in half a minute.")
        loaded = load(chosen.model, device=device, assets_dir=assets)
        total = sum(chosen.steps for cell in left if cell.method in ("mezo", "dpzero"))
        with tqdm(total=total, unit="step", smoothing=0.05, dynamic_ncols=True) as bar:
            for name, data in reads.items():
                mine = [cell for cell in left if cell.task == name]
                if not mine:
                    continue
                bench = Bench(loaded, get_task(name), _prompt_of(chosen, get_task(name)), data.read, device, out)
                splits: tuple[Split, ...] = ("test", "validation") if len(chosen.clips) > 1 else ("test",)
                for cell in mine:
                    bench.check(cell)
                for cell in mine:
                    label = cell.row() + (f", seed {cell.seed}" if cell.seed is not None else "")
                    bar.set_description(label)
                    bar.set_postfix_str("")
                    results.add(asdict(cell), bench.run(cell, bar, splits))
    else:
        say(f"All {len(everything)} runs are finished; this is their table.")
    _show(everything, results, chosen, out)


def _prompt_of(chosen: Recipe, task: Task) -> Recipe:
    """A prompt that only some tasks have is for these tasks; the others use their own."""
    return chosen if chosen.prompt in task.causal else replace(chosen, prompt=None)


def _show(everything: Sequence[Cell], results: Results, chosen: Recipe, out: Path) -> None:
    titles = {name: get_task(name).title for name in chosen.tasks}

    def paper(row: str, task: str) -> str | None:
        return reported.table2(row, "sst2" if task == "mr" else task)

    made = entries(everything, results)
    table = markdown(made, titles, chosen.model, paper) + "\n" + notes(made, chosen)
    try:
        write_whole(out / "table2.md", table)
        write_whole(out / "table2.csv", table_csv(made, paper))
        picture(made, titles, chosen.model, str(out / "table2.png"))
    except OSError as error:
        raise Refusal(f"room for the table in {out}", error.strerror, "Free some space and run it again.") from error
    show(table)
    say(f"Written: {out}/table2.md, table2.csv, table2.png; every run with its provenance in table2.jsonl.")


if __name__ == "__main__":
    typer.run(main)
