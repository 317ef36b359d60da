"""The privacy statement: what a run promises, about what, and what it does not, in Markdown and in JSON.

Every number comes from the plan and from the run; the words are fixed here, so that no statement says more than the
code does. Where a run is not private, the first line says so.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dpzo import accounting
from dpzo.algorithms import check
from dpzo.errors import Refusal
from dpzo.files import write_whole
from dpzo.ledger import Account
from dpzo.mechanisms import PlainSum
from dpzo.plan import Plan
from dpzo.printing import one_line, rounded_up
from dpzo.wording import NO_MODEL, draw_distance, markdown, words_of

SCHEMA = 2
TUNING = "not accounted"
PRETRAINING = "not covered: what the starting weights were trained on may have held these records"
LEAST_DOUBT = 1e-9  # a promise that leaves an attacker less doubt than this is none
_ALIKE = 1e-6  # how far, relatively, another machine's arithmetic may put an epsilon


@dataclass(frozen=True, kw_only=True)
class Statement:
    """What a run promises; made by ``statement`` or ``of_account``.

    Attributes:
        plan: the run's plan, public.
        secret: whether the batches and the noise came from secret streams.
        epsilon: of the charged steps; infinite when the run is not private.
        delta: ``delta_asked`` plus ``delta_of_noise``.
        epsilon_of_plan: what all steps of the plan cost when the streams are secret.
        delta_of_noise: what the computer's noise adds for being near the ideal one; None where there is none.
        charged, released: how many steps were paid for, and how many of them came to an end.
        couples_records: None when the model promises that a record's loss is its own, else what it says.
        untried: why nobody tried whether it is, where that is not promised; None when it was tried, and came out so.
        uncovered: what else was released of the private data, outside the guarantee.
    """

    plan: Plan
    secret: bool
    delta_asked: float
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
    untried: str | None
    tuning: str
    pretraining: str
    uncovered: tuple[str, ...]

    @property
    def doubt(self) -> float:
        """How often, at least, whoever guesses between two neighbours at even odds must be wrong.

        Both errors of any test sum to at least 2 (1 - delta) / (1 + e^epsilon) (Kairouz et al. 2015). With less than
        ``LEAST_DOUBT``, which is epsilon above 20.7, the promise allows all but certainty, and so it is none.
        """
        return max(0.0, 1 - self.delta) / (1 + math.exp(min(self.epsilon, 700.0)))

    @property
    def not_private(self) -> tuple[str, ...]:
        """The reasons why the run has no guarantee, if any."""
        noiseless, finite = isinstance(self.plan.mechanism, PlainSum), math.isfinite(self.epsilon)
        numbers = f"epsilon = {rounded_up(self.epsilon)} and delta = {rounded_up(self.delta)}"
        reasons = {
            "the plan has no noise": noiseless,
            "the batches or the noise came from a seed, and whoever knows it can subtract the noise": not self.secret,
            "the accountant finds no finite epsilon": self.secret and not noiseless and not finite,
            f"{numbers} promise nothing: they allow a guess of which of two neighbours it was that is wrong less often "
            f"than once in {1 / LEAST_DOUBT:,.0f}": finite and self.doubt < LEAST_DOUBT,
            f"{numbers} allow one record in {self.plan.n:,} to be published": self.delta * self.plan.n >= 1
            and self.doubt >= LEAST_DOUBT,
        }
        return tuple(reason for reason, holds in reasons.items() if holds)

    @property
    def not_accounted(self) -> bool:
        """Whether records may move each other's losses, and nobody tried how far: then no epsilon is known to hold."""
        return self.untried is not None

    @property
    def private(self) -> bool:
        """Whether it may be called differentially private."""
        return not self.not_private and not self.not_accounted

    def json(self) -> str:
        """Return the statement as strict JSON with stable keys: an infinite epsilon is null."""
        own = {field.name: _strict(getattr(self, field.name)) for field in fields(self)}
        verdict = {name: getattr(self, name) for name in ("private", "not_private", "not_accounted")}
        told = {"schema": SCHEMA} | verdict | own | {"plan": self.plan.describe()} | words_of(self)
        return json.dumps(told, indent=2, sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Statement":
        """Return the statement that ``json`` wrote; every number and every word of dpzo's is computed again.

        What only the author or the model can know (secret streams, steps, the author's words) is taken as it stands:
        a ledger is the evidence for it (``of_account``), and no file can be its own.

        Raises:
            Refusal: anything else, another schema, a plan that nobody runs, or a part that does not follow.
        """
        try:
            told = json.loads(text)
            if (schema := told["schema"]) != SCHEMA:
                raise Refusal(f"a statement of schema {SCHEMA}", schema, "Read it with the dpzo that wrote it.")
            own = {field.name: told[field.name] for field in fields(cls)}
            own |= {key: math.inf for key in ("epsilon", "epsilon_of_plan") if own[key] is None}
            made = cls(**own | {"plan": Plan.described(own["plan"]), "uncovered": tuple(own["uncovered"])})
            wrong = _what_does_not_follow(made, told)
        except Refusal:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise Refusal("the JSON of a privacy statement", repr(error), "Give what Statement.json wrote.") from error
        if wrong:
            raise Refusal(
                "a statement whose parts follow from its plan",
                f"another {', '.join(wrong)}",
                f"Give what Statement.json wrote, with the dpzo that wrote it ({one_line(made.dpzo)}).",
            )
        return made

    def markdown(self) -> str:
        """Return the statement as Markdown, without a heading; its first line is the verdict."""
        return markdown(self)


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

    Of ``model`` two attributes are read. ``couples_records`` is None when it promises that a record's loss is its own,
    else what it says of that. ``untried`` is None where that was tried on other records, else why it was not: then, or
    where neither is there, the first line says NOT ACCOUNTED.

    Raises:
        Refusal: a plan that ``run`` refuses, a bad delta, number of steps or accountant, or ``private`` that is not a
            bool.

    >>> from dpzo import Relation, dpzero
    >>> class Promising:
    ...     couples_records = None
    >>> plan = dpzero(n=1000, steps=100, step_size=.1, zo_eps=1e-3, clip_threshold=1., noise_multiplier=20.,
    ...               relation=Relation.REPLACE_ONE)
    >>> print(statement(plan, 1e-5, private=True, model=Promising()).markdown().splitlines()[0])
    **Differentially private**: epsilon = 4.378, delta = 1e-05.
    """
    from dpzo import __version__

    check(plan)
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
    couples, untried = _what_it_says(model)
    return Statement(
        plan=plan,
        secret=private,
        delta_asked=delta,
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
        untried=untried,
        tuning=tuning,
        pretraining=pretraining,
        uncovered=tuple(uncovered),
    )


def _what_it_says(model: Any) -> tuple[str | None, str | None]:
    if model is None:
        return NO_MODEL, None
    name = type(model).__name__
    couples = getattr(model, "couples_records", f"{name} does not say whether it is.")
    return couples, getattr(model, "untried", None if couples is None else f"No run of this {name} tried it.")


def _what_does_not_follow(made: Statement, told: dict[str, Any]) -> list[str]:
    """The keys of ``told`` that are not what ``made``'s plan, streams, steps and words lead to."""
    usual = accounting.choose(made.plan.event(made.charged), None, made.plan.relation)
    accountant = None if made.accountant == usual else made.accountant
    again = statement(
        made.plan,
        made.delta_asked,
        private=made.secret,
        steps=made.charged,
        released=made.released,
        accountant=accountant,
    )
    texts = (made.tuning, made.pretraining, made.dpzo, made.dp_accounting, *made.uncovered)
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("what should be a text is none")
    if not all(isinstance(text, str | None) for text in (made.couples_records, made.untried)):
        raise TypeError("what the model says is no text")
    # delta_of_noise follows from epsilon by a factor e^epsilon, which enlarges what arithmetic does to it.
    size = 1 + (min(again.epsilon_of_plan, 700.0) if made.delta_of_noise else 0.0)
    wrong = [
        name
        for name, size in {"epsilon": 1.0, "epsilon_of_plan": 1.0, "delta_of_noise": size}.items()
        if not _alike(getattr(made, name), getattr(again, name), size * _ALIKE)
    ]
    if made.delta != min(1.0, made.delta_asked + (made.delta_of_noise or 0.0)):
        wrong.append("delta")
    written = json.loads(made.json())
    return wrong + sorted(key for key in told.keys() | written.keys() if told.get(key, ...) != written.get(key, ...))


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


def _delta_of_noise(plan: Plan, charged: int, epsilon: float) -> float | None:
    # All draws within tau of ideal ones: P <= P' + tau <= e^eps Q' + delta + tau <= e^eps Q + delta + (1 + e^eps) tau.
    if (distance := draw_distance(plan)) is None:
        return None
    return min(1.0, (1 + math.exp(min(epsilon, 700.0))) * charged * plan.mechanism.directions * distance)


def _alike(told: float | None, expected: float | None, tolerance: float) -> bool:
    if told is None or expected is None:
        return told is expected
    return math.isclose(told, expected, rel_tol=tolerance)


def _strict(value: Any) -> Any:
    return None if isinstance(value, float) and math.isinf(value) else value
