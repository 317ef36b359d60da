"""Figure 2: the loss against the dimension; the same runs as Figure 1, each measure with its own best cells."""

import sys
from pathlib import Path
from typing import Annotated

# Run as a file, so that the folder above is not on the path by itself.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import typer

from reproduce.figure1 import show
from reproduce.quadratics import SIZES
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
    show("figure2", "loss", "mean loss", size, noise, dimensions, seeds, methods, out, resume, jobs)


if __name__ == "__main__":
    typer.run(main)
