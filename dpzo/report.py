"""The privacy statement: what a run promises, about what, and what it does not, in Markdown and in JSON.

Every number comes from the plan and from the run; the words are fixed here, so that no statement says more than the
code does. Where a run is not private, the first line says so.
"""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dpzo import accounting
from dpzo.errors import Refusal
from dpzo.independence import UNTRIED, couples_records
from dpzo.ledger import Account
from dpzo.mechanisms import PlainSum
from dpzo.plan import Plan
from dpzo.wording import draw_distance, one_line, rounded_up, stages_of, words_of

SCHEMA = 1
TUNING = "not accounted"
PRETRAINING = "not covered: what the starting weights were trained on may have held these records"


@dataclass(frozen=True, kw_only=True)
class Statement:
    """What a run promises; made by ``statement`` or ``of_account``.

    Attributes:
        plan: the run's plan, public.
        secret: whether the batches and the noise came from secret streams.
        epsilon: of the charged steps; infinite when the run is not private.
        delta: the one asked for plus ``delta_of_noise``.
        epsilon_of_plan: what all steps of the plan cost when the streams are secret.
        delta_of_noise: what the computer's noise adds for being near the ideal one; None where it is idealised.
        charged, released: how many steps were paid for, and how many of them came to an end.
        couples_records: None when the model promises that a record's loss is its own, else what it says.
        uncovered: what else was released of the private data, outside the guarantee.
    """

    plan: Plan
    secret: bool
    epsilon: float
    delta: float
    epsilon_of_plan: float
    delta_of_noise: float | None
    charged: int
    released: int
    accountant: str
    dp_accounting: str
    dpzo: str
    couples_records: str | None
    tuning: str
    pretraining: str
    uncovered: tuple[str, ...]

    @property
    def not_private(self) -> tuple[str, ...]:
        """The reasons why the run has no guarantee, if any."""
        noiseless = isinstance(self.plan.mechanism, PlainSum)
        reasons = {
            "the plan has no noise": noiseless,
            "the batches or the noise came from a seed, and whoever knows it can subtract the noise": not self.secret,
            "the accountant finds no finite epsilon": self.secret and not noiseless and math.isinf(self.epsilon),
        }
        return tuple(reason for reason, holds in reasons.items() if holds)

    def json(self) -> str:
        """Return the statement as strict JSON with stable keys: an infinite epsilon is null."""
        own = {field.name: _strict(getattr(self, field.name)) for field in fields(self)}
        verdict = {"schema": SCHEMA, "private": not self.not_private, "not_private": self.not_private}
        told = verdict | own | {"plan": self.plan.describe()} | words_of(self)
        return json.dumps(told, indent=2, sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Statement":
        """Return the statement that ``json`` wrote.

        Raises:
            Refusal: anything else, or another schema.
        """
        try:
            told = json.loads(text)
            if (schema := told["schema"]) != SCHEMA:
                raise Refusal(f"a statement of schema {SCHEMA}", schema, "Read it with the dpzo that wrote it.")
            own = {field.name: told[field.name] for field in fields(cls)}
            own |= {key: math.inf for key in ("epsilon", "epsilon_of_plan") if own[key] is None}
            made = cls(**own | {"plan": Plan.described(own["plan"]), "uncovered": tuple(own["uncovered"])})
            again = json.loads(made.json())
            agree = all(told[key] == again[key] for key in ("private", "relation", "unit"))
        except Refusal:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Refusal("the JSON of a privacy statement", repr(error), "Give what Statement.json wrote.") from error
        if not agree:
            raise Refusal("a statement whose parts agree", "one that was changed", "Give what Statement.json wrote.")
        return made

    def markdown(self) -> str:
        """Return the statement as Markdown, without a heading; its first line is the verdict."""
        words, plan, reasons = words_of(self), self.plan, self.not_private
        verdict = f"**Differentially private**: epsilon = {rounded_up(self.epsilon)}, delta = {rounded_up(self.delta)}"
        if (self.couples_records or "").startswith(UNTRIED):
            verdict = verdict.replace("Differentially private", UNTRIED) + " if a record's loss is its own, untried"
        if reasons:
            verdict = f"**NOT PRIVATE**: {'; '.join(reasons)}"
        if self.uncovered:
            verdict += "; what else was released is not covered (below)"
        facts = {
            "guarantee": "none" if reasons else f"for any {words['neighbours']}",
            "relation": str(plan.relation),
            "unit": f"one {plan.unit}",
            "n": f"{plan.n:,} {plan.unit}s: a public number, which is not hidden",
            "algorithm": plan.algorithm,
            "sampler, as run": words["sampler"],
            "sampler, as analysed": "the same: one object makes the batches and tells the accountant",
            "mechanism": words["mechanism"],
            "noise": words["noise"],
            "stages": stages_of(plan),
            "steps": f"{self.charged:,} charged of {plan.steps:,} planned; {self.released:,} released",
            "accountant": f"{words['accounting']}; dp-accounting {self.dp_accounting}, dpzo {self.dpzo}",
            "a record's loss": words["losses"],
            "cost of tuning": self.tuning,
            "pretraining": self.pretraining,
        }
        parts = [
            verdict + ".",
            "| | |\n| --- | --- |\n" + "\n".join(f"| {k} | {one_line(v)} |" for k, v in facts.items()),
        ]
        if reasons and math.isfinite(self.epsilon_of_plan):
            parts.append(f"With secret streams the whole plan would cost epsilon = {rounded_up(self.epsilon_of_plan)}.")
        elif not reasons and self.charged < plan.steps:
            whole = f"epsilon = {rounded_up(self.epsilon_of_plan)}, the whole plan's"
            parts.append(f"If the run was stopped because of what it had released, it has {whole}.")
        for title, items in (
            ("Released" if reasons else "Released, and covered", words["covered"]),
            ("Released, and not covered", self.uncovered),
            ("Not released, and not covered if it ever is", words["withheld"]),
        ):
            parts += ["\n".join([f"{title}:", "", *(f"- {one_line(item)}" for item in items)])] if items else []
        return "\n\n".join(parts) + "\n"


def statement(
    plan: Plan,
    delta: float,
    *,
    private: bool,
    steps: int | None = None,
    released: int | None = None,
    model: object = None,
    accountant: str | None = None,
    tuning: str = TUNING,
    pretraining: str = PRETRAINING,
    uncovered: Sequence[str] = (),
) -> Statement:
    """State what ``steps`` charged steps of ``plan`` promise (all by default), ``released`` of which came to an end.

    ``private`` is ``streams.are_private``. ``tuning``, ``pretraining`` and ``uncovered`` are the author's words: how
    choosing hyper-parameters was paid for, what the starting weights have seen, and what else was released.

    Raises:
        Refusal: a bad delta, number of steps or accountant, or ``private`` that is not a bool.

    >>> from dpzo import Relation, dpzero
    >>> plan = dpzero(n=1000, steps=100, step_size=.1, zo_eps=1e-3, clip_threshold=1., noise_multiplier=20.,
    ...               relation=Relation.REPLACE_ONE)
    >>> print(statement(plan, 1e-5, private=True).markdown().splitlines()[0])
    **Differentially private**: epsilon = 4.378, delta = 1e-05.
    """
    from dpzo import __version__

    if not isinstance(private, bool):
        raise Refusal("private to be True or False", type(private).__name__, "Give streams.are_private.")
    charged = plan.steps if steps is None else steps
    epsilon = plan.epsilon(delta, steps=charged, accountant=accountant)
    released = charged if released is None else released
    if isinstance(released, bool) or not isinstance(released, int) or not 0 <= released <= charged:
        raise Refusal(f"a number of released steps from 0 to the {charged} charged", released, "Count them again.")
    if isinstance(uncovered, str):
        raise Refusal("a list of what else was released", "one text", "Put it in a list.")
    added = _delta_of_noise(plan, charged, epsilon)
    couples: str | None = "This statement was made without the model."
    if model is not None:
        unsaid = f"{type(model).__name__} does not say whether it is."
        couples = couples_records(model, unsaid)
    return Statement(
        plan=plan,
        secret=private,
        epsilon=epsilon if private and not isinstance(plan.mechanism, PlainSum) else math.inf,
        delta=min(1.0, delta + (added or 0.0)),
        epsilon_of_plan=plan.epsilon(delta, accountant=accountant),
        delta_of_noise=added,
        charged=charged,
        released=released,
        accountant=accounting.choose(plan.event(charged), accountant, plan.relation),
        dp_accounting=version("dp-accounting"),
        dpzo=__version__,
        couples_records=couples,
        tuning=tuning,
        pretraining=pretraining,
        uncovered=tuple(uncovered),
    )


def of_account(account: Account, delta: float, **others: Any) -> Statement:
    """State what the run of a ledger (``dpzo.ledger.read``) promises so far; ``others`` as in ``statement``."""
    told = {"private": account.header["private"], "steps": account.charged, "released": len(account.steps)}
    return statement(account.plan, delta, **told, **others)


def write(made: Statement, folder: str | Path) -> tuple[Path, Path]:
    """Write ``privacy.md`` and ``privacy.json`` into ``folder``, each whole or not at all; return their paths.

    Raises:
        Refusal: a folder that cannot be written to.
    """
    paths = Path(folder) / "privacy.md", Path(folder) / "privacy.json"
    for path, text in zip(paths, (made.markdown(), made.json()), strict=True):
        write_whole(path, text)
    return paths


def write_whole(path: Path, text: str) -> None:
    """Put ``text`` at ``path`` in one move, so that no reader and no crash sees half of it.

    Raises:
        Refusal: a place that cannot be written to.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(part, "w", encoding="utf-8", newline="") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise Refusal(f"a file that can be written at {path}", error.strerror, "Choose another folder.") from error


def _delta_of_noise(plan: Plan, charged: int, epsilon: float) -> float | None:
    # All draws within tau of ideal ones: P <= P' + tau <= e^eps Q' + delta + tau <= e^eps Q + delta + (1 + e^eps) tau.
    if (distance := draw_distance(plan)) is None:
        return None
    return min(1.0, (1 + math.exp(min(epsilon, 700.0))) * charged * plan.mechanism.directions * distance)


def _strict(value: Any) -> Any:
    return None if isinstance(value, float) and math.isinf(value) else value
