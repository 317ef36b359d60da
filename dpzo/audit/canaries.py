"""A one-run audit: many canary records, each in the data or not by its own fair coin, and guesses about the coins.

The auditor knows the transcript, the starting weights, the canaries and all other records, and so can compute what
each record would have contributed at every step, at the iterate where it was taken (by replay). What is unknown are
the coins and the noise. ``Coins`` makes the training data: a canary's loss is multiplied by its weight, 1 or 0
(add/remove, zero-out), or 1 or -1 (replace-one: by its opposite). Flipping a coin is one change under the relation,
so (epsilon, delta) of the plan covers it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from dpzo.accounting import Relation
from dpzo.audit.bounds import ALPHA, epsilon_from_guesses
from dpzo.audit.claims import Claim, Finding, scale
from dpzo.audit.steps import per_step
from dpzo.directions import seeds_of
from dpzo.errors import Refusal
from dpzo.estimators import two_points
from dpzo.mechanisms import (
    GRID,
    EachGaussianMechanism,
    GaussianMechanism,
    Mechanism,
    PlainSum,
    finite,
    on_grid,
    on_grid_jointly,
)
from dpzo.parameters import Parameters
from dpzo.plan import Plan
from dpzo.sampling import FullBatch
from dpzo.transcript import replayed
from dpzo.types import Data, Entropy, Floats, Indices, LossModel, Step
from dpzo.walk import Walk


@dataclass(frozen=True)
class Coins:
    """Data with a weight for each record: 1 for the ordinary ones, a coin's for the last ``len(sides)``, the canaries.

    Attributes:
        data: all records, with the canaries at the end, whether they are in or not.
        sides: (m,) True for the canaries that are in.
        out: the weight of a canary that is not: 0, or -1 under replace-one.
    """

    data: Data
    sides: np.ndarray[Any, np.dtype[np.bool_]]
    out: float

    @classmethod
    def toss(cls, data: Data, canaries: int, relation: Relation, entropy: Entropy) -> "Coins":
        """Toss a fair coin for each of the last ``canaries`` records of ``data``."""
        if not 0 < canaries <= len(data):
            raise Refusal(f"from 1 to {len(data)} canaries among the data", canaries, "Choose fewer.")
        bits = entropy.bits(8 * canaries)
        sides = np.array([bits >> 8 * i & 1 for i in range(canaries)], dtype=bool)
        return cls(data, sides, -1.0 if relation is Relation.REPLACE_ONE else 0.0)

    @property
    def known(self) -> Indices:
        """The records that are no canaries."""
        return np.arange(len(self) - len(self.sides))

    @property
    def canaries(self) -> Indices:
        """The canaries, in or not."""
        return np.arange(len(self) - len(self.sides), len(self))

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, indices: Indices) -> tuple[Any, Tensor]:
        weights = np.ones(len(self))
        weights[self.canaries] = np.where(self.sides, 1.0, self.out)
        return self.data[indices], torch.from_numpy(weights[indices])


class Weighted:
    """A model whose losses are multiplied by the weights that ``Coins`` gives."""

    def __init__(self, model: LossModel) -> None:
        self.model = model

    @property
    def params(self) -> Parameters:
        """The model's own."""
        return self.model.params

    def losses(self, records: tuple[Any, Tensor]) -> Tensor:
        """(b,) weighted losses."""
        inner, weights = records
        losses = self.model.losses(inner)
        return losses * weights.to(losses.device, losses.dtype)


@dataclass(frozen=True)
class Evidence:
    """What one run released, seen by the auditor: sums y (T K,) = known + canaries @ weights + noise.

    Attributes:
        y: (T K,) released sums, in units of the derivative.
        known: (T K,) expected contribution of the ordinary records.
        canaries: (T K, m) expected contribution of each canary, if it is in.
    """

    y: Floats
    known: Floats
    canaries: Floats


def contributions(mechanism: Mechanism, values: Floats) -> Floats:
    """What records with derivatives ``values`` (b, K) add to the sum, (b, K)."""
    if isinstance(mechanism, PlainSum):
        return finite(values)
    C, each = mechanism.clip_threshold, isinstance(mechanism, EachGaussianMechanism) or mechanism.directions == 1
    return np.asarray((on_grid if each else on_grid_jointly)(values, C) * (C / GRID))


def gather(plan: Plan, model: LossModel, coins: Coins, steps: list[Step]) -> Evidence:
    """Replay the run on ``model``, at its starting weights, and compute every record's share in each step.

    Costs the run's own forward passes, on all records at every step; leaves the trained weights in ``model``.

    Raises:
        Refusal: steps that released no scalars.
    """
    K = plan.mechanism.directions
    rate = plan.sampler.divisor(plan.n) / plan.n  # a Poisson batch is private: its expectation is known
    walk = Walk(plan, model)
    replay = replayed(walk, steps)
    records = coins.data[np.arange(plan.n)]
    y, known, canaries = [], [], []
    for step in steps:
        walk.enter(step.stage)
        us = [plan.direction.draw(walk.params, seed) for seed in seeds_of(step.seed, K)]
        v, mechanism = two_points(walk, records, us, plan.stages[step.stage].zo_eps), plan.mechanism_of(step.stage)
        shares = contributions(mechanism, v / K)
        known.append(rate * shares[coins.known].sum(0))
        canaries.append(rate * shares[coins.canaries].T)
        y.append(np.array(step.scalars) * plan.sampler.divisor(plan.n))
        next(replay)
    return Evidence(np.concatenate(y), np.concatenate(known), np.concatenate(canaries))


def scores(evidence: Evidence, out: float) -> Floats:
    """(m,) how much the releases speak for each canary's being in: the best linear guess of its coin.

    With D = ``evidence.canaries`` and r what is left of y when the known records and the canaries' mean are taken
    away: (D'D + v/h^2 I)^-1 D'r, h a coin's standard deviation and v the noise's variance, the most likely one (the
    claimed one would blind the audit to less). D'r alone is the sum of the released scalars times each canary's own
    derivatives; the inverse takes out what the canaries have in common.
    """
    h = (1 - out) / 2
    left = evidence.y - evidence.known - evidence.canaries.sum(1) * (1 + out) / 2
    U, s, Vt = np.linalg.svd(evidence.canaries, full_matrices=False)
    r = U.T @ left
    rest, others = max(float(left @ left - r @ r), 0.0), len(left) - len(r)

    def unlikely(v: float) -> float:
        law = h**2 * s**2 + v
        return float((r**2 / law + np.log(law)).sum() + rest / v + others * np.log(v))

    v = min(np.logspace(-14, 0, 57) * float(np.square(left).mean()), key=unlikely)
    return np.asarray(Vt.T @ (s / (s**2 + v / h**2) * r))


def audit_run(
    plan: Plan,
    model: LossModel,
    coins: Coins,
    steps: list[Step],
    *,
    delta: float,
    guesses: int | None = None,
    alpha: float = ALPHA,
) -> list[Finding]:
    """A lower bound of the run's epsilon at ``delta`` from guesses of the canaries' coins.

    ``model`` comes at the run's starting weights; ``plan.n`` counts the canaries, in or not. The ``guesses`` (default:
    all) most confident ones count; choose the number before the run. ``alpha`` must lie well above delta, which the
    run is allowed to fail by. For a full batch a second finding: the noise itself, recovered by the auditor who knows
    the coins too, has its exact chi-square law; it bounds mu of one step.
    """
    evidence = gather(plan, model, coins, steps)
    confidence = scores(evidence, coins.out)
    count = len(coins.sides) if guesses is None else guesses
    surest = np.argsort(-np.abs(confidence), kind="stable")[:count]
    right = int(((confidence > 0) == coins.sides)[surest].sum())
    claimed = plan.epsilon(delta, steps=len(steps))
    found = epsilon_from_guesses(right, count, delta, len(coins.sides), alpha)
    findings = [Finding(f"{plan.algorithm}: {right} of {count} coins right", "epsilon", claimed, found)]
    if isinstance(plan.sampler, FullBatch) and isinstance(plan.mechanism, GaussianMechanism | EachGaussianMechanism):
        claim = Claim.of(plan.event(1), plan.relation)
        noise = evidence.y - evidence.known - evidence.canaries @ np.where(coins.sides, 1.0, coins.out)
        units = np.repeat(per_step(plan, steps, scale), plan.mechanism.directions)
        squares = float(np.square(noise / units).sum())
        # The largest sigma, in units of the planned one, under which so little noise is not a wonder.
        largest = np.sqrt(squares / stats.chi2(len(noise)).ppf(alpha))
        findings.append(Finding(f"{plan.algorithm}: the run's noise", "mu", claim.shift, claim.shift / float(largest)))
    return findings
