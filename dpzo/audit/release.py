"""Attacks on what is released, by an attacker who knows everything but whether one record is there.

Every other record contributes 0; the record contributes C against the clip's whole strength, or is not there
(add/remove, zero-out), or contributes -C instead (replace-one). Its sign changes in turn, so that both sides of a clip
are met. The attacker compares a release with a threshold chosen beforehand. Bounds are on mu (Gaussian noise), not on
an epsilon at delta = 1e-5, which would hide even half the noise at this many releases.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dpzo.accounting import Relation
from dpzo.audit.bounds import ALPHA, binomial_p
from dpzo.audit.claims import Claim, Finding, against, scale
from dpzo.audit.seeds import audit_seeds
from dpzo.audit.steps import audit_steps
from dpzo.directions import ahead
from dpzo.errors import Refusal
from dpzo.mechanisms import GaussianVectorMechanism, Mechanism
from dpzo.parameters import Parameters
from dpzo.plan import Plan
from dpzo.randomness import OsEntropy, Streams
from dpzo.sampling import FullBatch, PoissonSampler
from dpzo.stages import Stage
from dpzo.train import run as dpzo_run
from dpzo.types import Entropy, Floats, Indices, Step

_DERIVATIVE = 1e30  # of the attacked record, beyond any clip
_THRESHOLDS = (-2.0, -1.0, 0.0, 1.0, 2.0)  # where the law of sampled releases is checked, in noise scales
_SEEDED = 200  # steps whose noise is compared with what public seeds give


def audit_release(
    mechanism: Mechanism,
    relation: Relation,
    releases: int = 20_000,
    *,
    noise: Entropy | None = None,
    alpha: float = ALPHA,
) -> Finding:
    """A lower bound of what one release costs, from ``releases`` of them with and as many without the record.

    With 20 000 and mu near 3, where such a test is at its best, it sees a tenth of the noise missing; at mu = 1 that
    takes 100 000. K > 1 is projected on the direction that the record moves it in.

    Raises:
        Refusal: a mechanism that claims nothing, or that releases a vector (see ``audit_plan``).
    """
    claim, unit = Claim.of(mechanism.event(), relation), scale(mechanism)
    if isinstance(mechanism, GaussianVectorMechanism):
        raise Refusal("a mechanism that releases scalars", "DPGD-0th's vectors", "Use audit_plan for its plan.")
    source = OsEntropy() if noise is None else noise
    K = mechanism.directions
    which = np.arange(K) % 62

    def world(weight: float) -> Floats:
        found = np.empty(releases)
        for i in range(releases):
            signs = 1.0 - 2 * (i >> which & 1)  # every pattern of signs in turn
            values = np.zeros((2, K))
            values[1] = weight * _DERIVATIVE * signs
            released = mechanism.release(values if K > 1 else values[:, 0], source)
            found[i] = (signs @ released.reshape(K)) / (np.sqrt(K) * unit)
        return found

    lower = claim.lower(world(-1 if relation is Relation.REPLACE_ONE else 0), world(1), relation, alpha)
    return Finding(f"{type(mechanism).__name__}, K = {K}, {relation}", claim.measure, claim.shift, lower)


class CanaryModel:
    """f(x; w) = w * 1e30 * sign(x_1): whatever u is, a record's derivative is far beyond any clip, or 0 for w = 0."""

    def __init__(self, d: int = 4) -> None:
        self.params = Parameters({"x": torch.zeros(d, dtype=torch.float64)})

    def losses(self, records: Tensor) -> Tensor:
        """(b,) losses of records that are their weights w."""
        return _DERIVATIVE * self.params["x"][0].sign() * records


class _Records:
    """n records, all of weight 0 but the first."""

    def __init__(self, n: int, weight: float, unit: str) -> None:
        self.weights, self.unit = torch.zeros(n, dtype=torch.float64), unit
        self.weights[0] = weight

    def __len__(self) -> int:
        return len(self.weights)

    def __getitem__(self, indices: Indices) -> Tensor:
        return self.weights[torch.from_numpy(indices)]


class _World(NamedTuple):
    """A run's steps, and what each released: its projection on where the record would move it, in noise scales."""

    steps: list[Step]
    released: Floats
    public_seed: int


Run = Callable[[Plan, CanaryModel, _Records, Streams], Iterator[Step]]


def audit_plan(
    plan: Plan,
    *,
    streams: Callable[[int], Streams] = Streams.secure,
    run: Run = dpzo_run,
    alpha: float = ALPHA,
) -> list[Finding]:
    """Run the plan twice from end to end, without and with the attacked record, and look at all that came out.

    The plan is run as it is but for its step sizes and radii, which are no part of the guarantee. It should have few
    records and thousands of steps. ``run`` is the loop under audit and ``streams(public_seed)`` its randomness.

    Findings: a lower bound of one step's loss; the exact law of the steps' releases, the mixture over being sampled
    or not (full batch and Poisson only: other samplers' steps depend on each other, and are held to the unsampled
    claim); and those of ``audit_steps`` and ``audit_seeds``.
    """
    independent = isinstance(plan.sampler, FullBatch | PoissonSampler)
    claim = Claim.of(plan.event(1) if independent else plan.mechanism.event(), plan.relation)
    means = claim.means(plan.relation)
    weights = (-1.0, 1.0) if plan.relation is Relation.REPLACE_ONE else (0.0, 1.0)
    worlds = [_observe(plan, weight, streams(seed), run) for seed, weight in enumerate(weights)]
    sampled = "" if claim.rate == 1 else f", sampled at {claim.rate:g}"
    name = f"{plan.algorithm}, {plan.relation}{sampled}"
    findings = []
    if len({len(w.released) for w in worlds} | {plan.steps}) == 1:
        lower = claim.lower(worlds[0].released, worlds[1].released, plan.relation, alpha / 2)
        findings.append(Finding(f"{name}: one step", claim.measure, claim.shift, lower))
    if independent:
        middle = sum(means) / 2
        p = [
            binomial_p(int((w.released > middle + t).sum()), len(w.released), claim.tail(middle + t, mean))
            for w, mean in zip(worlds, means, strict=True)
            for t in _THRESHOLDS
        ]
        findings.append(against(f"{name}: law of the releases", min(1.0, len(p) * min(p)), alpha / 4))
    for w in worlds:
        steps = audit_steps(plan, w.steps, whole=True, alpha=alpha / 16)
        if any(step.scalars for step in w.steps):
            steps += audit_seeds(plan, w.steps[:_SEEDED], w.public_seed, alpha=alpha / 16)
        findings += [finding._replace(what=f"{name}: {finding.what}") for finding in steps]
    return _worst(findings)


def _observe(plan: Plan, weight: float, streams: Streams, run: Run) -> _World:
    # So small a step that x_1 keeps the sign that the probe gives it.
    stage = Stage(plan.steps, 1e-12 / scale(plan.mechanism), zo_eps=1.0)
    plan = replace(plan, stages=(stage,))
    model, steps, moves = CanaryModel(), [], []
    x = model.params["x"]
    before = x.clone()
    for step in run(plan, model, _Records(plan.n, weight, plan.unit), streams):
        steps.append(step)
        moves.append((before - x).numpy() / stage.step_size)
        before = x.clone()
    K, divisor = plan.mechanism.directions, plan.sampler.divisor(plan.n)
    found = []
    for step, move, us in zip(
        steps, moves, ahead(plan.direction, model.params, (s.seed for s in steps), K), strict=True
    ):
        u = np.stack([drawn.dense()["x"].double().numpy() for drawn in us])
        sign = np.sign(u[:, 0])
        if step.scalars:
            found.append(sign @ np.array(step.scalars) / np.sqrt(K))
        else:
            found.append(float(sign[0] * (u[0] @ move) / np.linalg.norm(u[0])))
    return _World(steps, np.array(found) * divisor / scale(plan.mechanism), streams.public_seed)


def _worst(findings: list[Finding]) -> list[Finding]:
    """Of findings of the same name the one that says the most."""
    worst: dict[str, Finding] = {}
    for finding in sorted(findings, key=lambda f: f.found - f.claimed):
        worst[finding.what] = finding
    return [worst[what] for what in dict.fromkeys(f.what for f in findings)]
