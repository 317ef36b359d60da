"""``dpzo audit``: attack what this installation releases, or what a run's ledger says that it released."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from dpzo import ledger as ledgers
from dpzo.accounting import Relation
from dpzo.algorithms.dp_aggzo import dp_aggzo
from dpzo.algorithms.dp_zopo import dp_zopo
from dpzo.algorithms.dp_zoso import dp_zoso
from dpzo.algorithms.dpgd_zeroth import dpgd_zeroth
from dpzo.algorithms.dpzero import dpzero
from dpzo.audit.claims import Finding
from dpzo.audit.release import audit_plan, audit_release
from dpzo.audit.seeds import audit_seeds
from dpzo.audit.steps import audit_steps
from dpzo.directions import GaussianDirection
from dpzo.masks import Pruning
from dpzo.mechanisms import EachGaussianMechanism, GaussianMechanism, LaplaceMechanism, Mechanism
from dpzo.plan import Plan
from dpzo.printing import rounded_up
from dpzo.stages import Stage

C = 0.5


def audit(
    ledger: Annotated[
        Path | None, typer.Option(help="Look at this run's ledger; none: attack the library itself.")
    ] = None,
    releases: Annotated[
        int, typer.Option(min=1, help="Releases of each mechanism with, and as many without, the attacked record.")
    ] = 20_000,
) -> None:
    """Attack what is really released, and compare the privacy loss that the attacks prove with the claims.

    The library is attacked with the operating system's entropy, at noise so small that a tenth missing shows; each
    line is wrong with probability at most 1e-9. Of a ledger are checked the number of its steps, that each has its
    own noise and enough of it, and that the noise does not follow from a public seed. Exit code 1: a claim is broken.
    """
    found = _library(releases) if ledger is None else _ledger(ledger)
    table = Table(title="lower bounds on what was released" if ledger is None else str(ledger))
    for column in ("audit", "measure", "claimed", "found", "verdict"):
        table.add_column(column, justify="right" if column in ("claimed", "found") else "left")
    broken = False
    for finding in found:
        broken |= not finding.passed
        verdict = "holds" if finding.passed else "[bold red]BROKEN"
        table.add_row(finding.what, finding.measure, rounded_up(finding.claimed), f"{finding.found:.4g}", verdict)
    Console().print(table)
    if broken:
        raise typer.Exit(1)


def _library(releases: int) -> Iterator[Finding]:
    sigma = 1 / 3  # mu = 3, where the attack on a Gaussian is at its best
    once, replace = Relation.ADD_REMOVE, Relation.REPLACE_ONE
    mechanisms: list[tuple[Mechanism, Relation]] = [
        (GaussianMechanism(C, sigma), once),
        (GaussianMechanism(C, 2 * sigma), replace),
        (GaussianMechanism(C, sigma, directions=4), once),
        (EachGaussianMechanism(C, 2 * sigma, directions=4), once),
        (LaplaceMechanism(C, sigma), once),
    ]
    for mechanism, relation in mechanisms:
        yield audit_release(mechanism, relation, releases)
    for plan in plans(max(releases // 10, 1)):
        yield from _brief(audit_plan(plan))


def _brief(findings: list[Finding]) -> list[Finding]:
    """The bounds and what is broken, one by one; of what holds, how much it is."""
    shown = [finding for finding in findings if finding.measure in ("mu", "epsilon") or not finding.passed]
    run = findings[0].what.split(":")[0]
    others = f"{run}: {len(findings) - len(shown)} checks of law, counts and noise"
    return [*shown, Finding(others, "broken", 0, 0)]


def plans(steps: int) -> list[Plan]:
    """A small plan of every private algorithm; of DPZero one that is Poisson-sampled, too."""
    same = {"steps": steps, "step_size": 1.0, "zo_eps": 1.0, "clip_threshold": C}
    add_remove: dict[str, Any] = same | {"noise_multiplier": 1 / 3, "relation": Relation.ADD_REMOVE}
    replace_one: dict[str, Any] = same | {"noise_multiplier": 2 / 3, "relation": Relation.REPLACE_ONE}
    noise: dict[str, Any] = {name: add_remove[name] for name in ("clip_threshold", "noise_multiplier", "relation")}
    stages = (Stage(steps, 1.0, 1.0),)
    return [
        dpzero(n=2, **replace_one),
        dpzero(n=4, batch_size=2, direction=GaussianDirection(), **add_remove),
        dp_aggzo(n=2, directions=2, **add_remove),
        dpgd_zeroth(n=2, **add_remove),
        dp_zoso(n=2, directions=2, stages=stages, **noise),
        dp_zopo(n=2, stages=stages, pruning=Pruning(score="random"), **noise),
    ]


def _ledger(path: Path) -> Iterator[Finding]:
    account = ledgers.read(path)
    plan, steps = account.plan, account.steps
    yield Finding("steps charged", "count", plan.steps, account.charged)
    yield Finding("steps released but not charged", "count", 0, sum(step.index >= account.charged for step in steps))
    yield from audit_steps(plan, steps)
    if any(step.scalars for step in steps):
        yield from audit_seeds(plan, steps, account.header["public_seed"])
