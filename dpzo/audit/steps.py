"""What the released steps alone say: how many there are, and whether each has its own noise and enough of it.

Nothing here knows the data, so anybody can look at a published transcript. The tests hold whatever the clipped sums
are, and however they depend on earlier releases.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from dpzo.audit.bounds import ALPHA, most
from dpzo.audit.claims import Finding, against, noisy, scale
from dpzo.mechanisms import GRID, LaplaceMechanism, Mechanism
from dpzo.plan import Plan
from dpzo.types import Floats, Step


def released(plan: Plan, steps: Sequence[Step]) -> Floats:
    """(T, K) noisy sums in units of the noise's scale; T is 0 for steps that released vectors."""
    rows = [step.scalars for step in steps if step.scalars]
    units = per_step(plan, steps, scale)
    return np.array(rows).reshape(len(rows), plan.mechanism.directions) * (plan.sampler.divisor(plan.n) / units)


def per_step(plan: Plan, steps: Sequence[Step], what: Callable[[Mechanism], float]) -> Floats:
    """(T, 1) ``what`` of the mechanism of each released step's stage."""
    by_stage = [what(plan.mechanism_of(number)) for number in range(len(plan.stages))]
    return np.array([by_stage[step.stage] for step in steps if step.scalars], dtype=np.float64).reshape(-1, 1)


def audit_steps(plan: Plan, steps: Sequence[Step], *, whole: bool = False, alpha: float = ALPHA) -> list[Finding]:
    """Look at the steps of a run, or of a ``whole`` run, one that was not stopped or broken off.

    A clipped sum and noise on the grid meet in 0, or in the same number twice, with a probability that is bounded
    whatever the sum is: by the noise's largest one, 1/(2 sigma 2**24) or less. And |sum + noise| is the larger, in
    law, the larger |sum| is (symmetric unimodal noise), so too little noise on small sums shows.
    """
    indices = [step.index for step in steps]
    findings = [
        Finding("steps released", "count", plan.steps, len(steps)),
        Finding("steps beyond the plan", "count", 0, sum(not 0 <= i < plan.steps for i in indices)),
        Finding("steps released twice", "count", 0, len(indices) - len(set(indices))),
    ]
    if whole:
        findings.append(Finding("steps left out", "count", 0, len(set(range(plan.steps)) - set(indices))))
    y = released(plan, steps)
    if not y.size:
        return findings
    T, K = y.shape
    sigma = per_step(plan, steps, lambda mechanism: noisy(mechanism).noise_multiplier * GRID)
    meet = float((1 / (2 * sigma)).max()) + 2.0**-48  # the second where the numbers are larger than a float's 53 bits
    whole_numbers = np.rint(y * sigma)
    zeros = int((whole_numbers == 0).sum())
    repeats = y.size - len(np.unique(whole_numbers))
    findings += [
        Finding("releases without noise", "count", most(T * K, meet, alpha / 3), zeros),
        Finding("releases of the same noise", "count", most(T * K, T * K * meet, alpha / 3), repeats),
    ]
    if isinstance(plan.mechanism, LaplaceMechanism):
        p = stats.gamma(T).cdf(np.abs(y).sum())
    else:
        p = stats.chi2(T * K).cdf(np.square(y).sum())
    findings.append(against("less noise than planned", float(p), alpha / 3))
    return findings
