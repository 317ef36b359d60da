"""Figure 1: the gradient norm against the dimension, for effective ranks d, sqrt(d) and log(d), on quadratics.

n = 10,000 records, (epsilon, delta) = (2, 1e-6), the best of the paper's grids; no language model, no network.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

# Run as a file, so that the folder above is not on the path by itself.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import typer

from dpzo import Refusal
from reproduce.quadratics import PAPER, SIZES, chosen, gather, interval
from synthetic import report, style
from synthetic.problems import RANKS
from synthetic.sweep import METHODS


def main(
    size: Annotated[str, typer.Option(help=", ".join(SIZES))] = "laptop",
    noise: Annotated[str, typer.Option(help="lemma (the paper's, Lemma 2.2) or exact (2.5 times less).")] = "lemma",
    dimensions: Annotated[str | None, typer.Option(help="Other dimensions, such as 20,200.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Other seeds, such as 0,1,2.")] = None,
    methods: Annotated[str | None, typer.Option(help=f"Some of {', '.join(METHODS)}.")] = None,
    out: Annotated[Path, typer.Option(help="Where results, table and picture go.")] = Path("results"),
    resume: Annotated[bool, typer.Option(help="Go on from the finished runs in --out, or set them aside.")] = True,
    jobs: Annotated[int | None, typer.Option(help="Processes; by default the cores, up to 4.")] = None,
) -> None:
    """Run what is not in the results yet, then draw the figure; stop it at any time, the same command goes on."""
    show("figure1", "gradient", "norm of the gradient", size, noise, dimensions, seeds, methods, out, resume, jobs)


def show(
    name: str,
    measure: str,
    title: str,
    size: str,
    noise: str,
    dimensions: str | None,
    seeds: str | None,
    methods: str | None,
    out: Path,
    resume: bool,
    jobs: int | None,
) -> None:
    """Gather the experiment and write one of its two figures, with its table."""
    try:
        rows = gather(chosen(size, dimensions, seeds, methods), noise, out, resume, jobs)
    except Refusal as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        print(f"\nStopped. Finished runs are in {out}; the same command goes on from there.", file=sys.stderr)
        raise typer.Exit(130) from None
    text = f"{about(rows, title)}\n{table(rows, measure)}"
    report.write(out / f"{name}.md", text, ", ".join(map(str, rows[0]["seeds"])))
    draw(rows, measure, title, str(out / f"{name}.png"))
    report.show(text)
    print(f"Written: {out}/{name}.md, {name}.png; every run with its provenance in quadratics.jsonl.", file=sys.stderr)


def about(rows: list[dict[str, Any]], title: str) -> str:
    """What the numbers are, and how much of the paper's grid stands behind each method's."""
    one, of_all = rows[0], len(PAPER.combinations())
    noise = {"lemma": "by Lemma 2.2", "exact": "by exact accounting"}[one["noise"]]
    lines = [
        f"Quadratics, n = {one['n']:,}, epsilon = {one['epsilon']:g} at delta = {one['delta']:g}, replace-one "
        f"neighbours; noise {noise}. Each number is the {title} at the last iterate, mean ± half of the 95 % interval "
        f"over {len(one['seeds'])} seeds, for the step size, C and T that are best on the training set.\n"
    ]
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [row["outcome"] for row in rows if row["method"] == method]
        least, most = min(o["cells"] for o in mine), max(o["cells"] for o in mine)
        settled = f"all {of_all}" if least == of_all else f"{least} to {most} of the {of_all}"
        proved = sum(o["cells"] - o.get("run_on_all_seeds", o["cells"]) for o in mine) // len(mine)
        given_up = f" ({proved} of them, on average, are given up by proof that they lose)" if proved else ""
        lines.append(f"- {method}: best of {settled} combinations of the paper's grid{given_up}.\n")
    return "".join([lines[0], "\n", *lines[1:]])


def table(rows: list[dict[str, Any]], measure: str) -> str:
    """Markdown: mean and half of the 95 % interval over seeds, training then test, and the combination that won."""
    lines = [
        "| rank | d | method | train | test | step size | C | T | where the paper's grid ends |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in sorted(rows, key=lambda r: (list(RANKS).index(r["rank"]), r["d"], METHODS.index(r["method"]))):
        train, test = row["outcome"][f"train_{measure}"], row["outcome"][f"test_{measure}"]
        (mean, half), (test_mean, test_half) = interval(train["values"]), interval(test["values"])
        won = f"{train['alpha']:g} | {train['clip']:g} | {train['steps']} | {_ends(train)}"
        lines.append(
            f"| {row['rank']} | {row['d']} | {row['method']} | {mean:.4g} ± {half:.2g} | {test_mean:.4g} ± "
            f"{test_half:.2g} | {won} |"
        )
    return "\n".join(lines) + "\n"


def _ends(best: dict[str, Any]) -> str:
    """Which of the winner's values are the least or the largest of the paper's grid: a better one may lie beyond."""
    axes = (("step size", PAPER.alphas, best["alpha"]), ("C", PAPER.clips, best["clip"]))
    axes += (("T", PAPER.lengths, best["steps"]),)
    return ", ".join(name for name, values, value in axes if value in (min(values), max(values)))


def draw(rows: list[dict[str, Any]], measure: str, title: str, path: str) -> None:
    """Six panels: training above test, one column a rank."""
    figure, grid = style.axes(2, len(RANKS), sharex=True, sharey="col")
    for column, rank in enumerate(RANKS):
        for line, split in enumerate(("train", "test")):
            on = grid[line, column]
            ends = []
            for method in (name for name in METHODS if name in {row["method"] for row in rows}):
                mine = sorted((r for r in rows if r["rank"] == rank and r["method"] == method), key=lambda r: r["d"])
                told = [interval(r["outcome"][f"{split}_{measure}"]["values"]) for r in mine]
                d, mean, half = [r["d"] for r in mine], [m for m, _ in told], [h for _, h in told]
                ends.append((d[-1], mean[-1], method, style.COLOURS[method]))
                on.errorbar(
                    d, mean, half, color=style.COLOURS[method], marker=style.MARKS[method],
                    linestyle=style.LINES[method], capsize=2, markersize=4, linewidth=1.2,
                )  # fmt: skip
            on.set(xscale="log", yscale="log")
            style.label_ends(on, ends)
            on.set_title(f"{split}, effective rank {rank}", fontsize=9)
            if line:
                on.set_xlabel("dimension d", fontsize=9)
            if not column:
                on.set_ylabel(title, fontsize=9)
    style.save(figure, path)


if __name__ == "__main__":
    typer.run(main)
