"""How the laptop recipe of Table 2 was chosen: a small grid, judged on the validation set alone.

``python reproduce/study.py --grid recipe`` (or ``coordinates``) trains DPZero at both epsilons for every point of the
grid and prints the validation accuracy and loss. The test set is never read. The choice itself is not accounted.
"""

import itertools
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

# Run as a file, so that the folder above is not on the path by itself.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import typer
from tqdm import tqdm

from dpzo import Refusal
from dpzo.files import write_whole
from dpzo.models.load import load
from dpzo.tasks import get_task
from reproduce.data import Data
from reproduce.engine import Bench, cells, say
from reproduce.recipes import recipe
from reproduce.results import Results
from synthetic.report import show

GRIDS = {
    # How long, how far, how much clipped: in the model's own coordinates.
    "recipe": {
        "rescaled": (False,),
        "steps": (1000, 3000),
        "step_size": (0.3, 1.0, 3.0),
        "clips": ((0.5,), (1.0,), (2.0,)),
        "average": (False, True),
    },
    # Those coordinates against rescaled ones, at the length and the clip that the first grid chose.
    "coordinates": {"rescaled": (False, True), "step_size": (1.0, 2.0, 3.0)},
}


def main(
    grid: Annotated[str, typer.Option(help=" or ".join(GRIDS))] = "coordinates",
    model: Annotated[str, typer.Option(help="A packaged model.")] = "smollm2-135m",
    prompt: Annotated[str, typer.Option(help="The causal prompt.")] = "sentiment",
    seeds: Annotated[str, typer.Option(help="Public seeds.")] = "1,2",
    out: Annotated[Path, typer.Option(help="Where the results go.")] = Path("results"),
) -> None:
    """Run the grid, skipping what is finished in --out, and print it, best loss first."""
    try:
        base = replace(recipe("laptop", model), prompt=prompt, seeds=tuple(int(s) for s in seeds.split(",")))
        if grid not in GRIDS:
            raise Refusal(f"a grid out of {', '.join(GRIDS)}", repr(grid), "Choose one.")
        axes: dict[str, Any] = GRIDS[grid]
        task, data = get_task("mr"), Data(get_task("mr"), None, None)
        results = Results(out / f"study_{grid}.jsonl")
        bench = Bench(load(model), task, base, data.read, "cpu")
        points = [replace(base, **dict(zip(axes, values, strict=True))) for values in itertools.product(*axes.values())]
        lines = []
        with tqdm(total=sum(p.steps * len(p.seeds) * len(p.epsilons) for p in points), unit="step") as bar:
            for point in points:
                bench.use(point)
                bar.set_description(f"T {point.steps} step {point.step_size:g} C {point.clips[0]:g}")
                for epsilon in point.epsilons:
                    runs = []
                    for cell in cells("study", point, "mr", data.told, ["dpzero"], [epsilon]):
                        run = results.get(asdict(cell))
                        if run is None:
                            results.add(asdict(cell), bench.run(cell, bar, ["validation"]))
                            run = results.get(asdict(cell))
                        assert run is not None
                        runs.append(run)
                    accuracy = 100 * float(np.mean([r["validation_accuracy"] for r in runs]))
                    loss = float(np.mean([r["validation_loss"] for r in runs]))
                    lines.append((epsilon, loss, accuracy, point))
        table = [
            "| epsilon | coordinates | T | step size | C | iterate | validation accuracy | validation loss |",
            "|" + " --- |" * 8,
        ]
        for epsilon, loss, accuracy, p in sorted(lines, key=lambda line: (-line[0], line[1])):
            iterate = "mean of last half" if p.average else "last"
            told = (
                f"{epsilon:g}",
                "rescaled" if p.rescaled else "plain",
                str(p.steps),
                f"{p.step_size:g}",
                f"{p.clips[0]:g}",
                iterate,
            )
            table.append("| " + " | ".join([*told, f"{accuracy:.1f}", f"{loss:.4f}"]) + " |")
        text = (
            f"# The laptop recipe's study: {model}, prompt {prompt!r}\n\nDPZero at delta {base.delta:g}, mean over the "
            f"public seeds {seeds}; trained: {', '.join(base.trainable)}; expected batch {base.batch_size}, lambda "
            f"{base.zo_eps:g}. Validation set only, best loss first. Made by "
            f"`python reproduce/study.py --grid {grid}`.\n\n"
        )
        write_whole(out / f"study_{grid}.md", text + "\n".join(table) + "\n")
        show("\n".join(table))
    except Refusal as refusal:
        say(f"error: {refusal}")
        raise typer.Exit(2) from None


if __name__ == "__main__":
    typer.run(main)
