"""A replay attack: it asks whether a transcript's noise is a function of a seed that anybody knows.

A build that reseeds a generator with the direction's seed, as is natural for replaying directions, and then draws its
noise from it, adds a number that every reader of the transcript can draw too, and subtract. Here the usual ways in
which noise may follow from a public seed are tried one by one.

Guesses are compared with the releases as standard normal scores g. If the true noise is secret, g has nothing to do
with the releases y, so <y, g> / |y| is exactly standard normal, however large the sums in y are. (The guesses are
public pseudo-random numbers; that they are independent of the directions, drawn by another generator, is assumed.)
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats
from scipy.special import ndtri

from dpzo.audit.bounds import ALPHA
from dpzo.audit.claims import Finding, against, noisy, scale
from dpzo.audit.steps import per_step, released
from dpzo.directions import seeds_of
from dpzo.errors import Refusal
from dpzo.mechanisms import GaussianVectorMechanism, LaplaceMechanism
from dpzo.plan import Plan
from dpzo.randomness import Streams
from dpzo.types import Floats, Step

Draw = Callable[[int, int, bool], Floats]
"""(seed, count, uniform) to the first ``count`` numbers of a generator: standard normal, or uniform on [0, 1)."""


def _legacy(seed: int, count: int, uniform: bool) -> Floats:
    state = np.random.RandomState(seed % 2**32)
    return state.random_sample(count) if uniform else state.standard_normal(count)


def _modern(seed: int, count: int, uniform: bool) -> Floats:
    state = np.random.default_rng(seed)
    return state.random(count) if uniform else state.standard_normal(count)


def _torch(seed: int, count: int, uniform: bool, before: Sequence[int] = ()) -> Floats:
    state = torch.Generator().manual_seed(seed)
    for size in before:
        torch.empty(size).normal_(generator=state)
    numbers = torch.empty(count)
    numbers = numbers.uniform_(generator=state) if uniform else numbers.normal_(generator=state)
    return numbers.double().numpy()


def _python(seed: int, count: int, uniform: bool) -> Floats:
    # The standard library's generator is numpy's legacy one, keyed by the seed's 32-bit words; its gauss is Box-Muller.
    words = [seed >> shift & 0xFFFFFFFF for shift in range(0, max(seed.bit_length(), 1), 32)]
    state = np.random.RandomState(words)
    if uniform:
        return state.random_sample(count)
    angle, length = state.random_sample((-(-count // 2), 2)).T
    length = np.sqrt(-2 * np.log(1 - length))
    return np.stack([np.cos(2 * np.pi * angle) * length, np.sin(2 * np.pi * angle) * length], 1).ravel()[:count]


GENERATORS: dict[str, Draw] = {
    "numpy RandomState": _legacy,
    "numpy default_rng": _modern,
    "torch manual_seed": _torch,
    "Python random": _python,
}


class Guess(NamedTuple):
    """A way in which the noise may follow from public numbers, and the noise (T, K) that it gives, in its scale."""

    name: str
    noise: Floats


def guesses(plan: Plan, steps: Sequence[Step], public_seed: int, sizes: Sequence[int] = ()) -> Iterator[Guess]:
    """Every way that is tried; ``sizes`` are the trained tensors' numbers of elements, in order, where they are known.

    With them, a torch generator that first gave a direction, tensor by tensor, goes on to the noise.
    """
    K, laplace = plan.mechanism.directions, isinstance(plan.mechanism, LaplaceMechanism)

    def guess(name: str, numbers: Sequence[Floats] | Floats) -> Guess:
        drawn = np.array(numbers).reshape(len(steps), K)
        return Guess(name, stats.laplace.ppf(np.clip(drawn, 2.0**-53, 1 - 2.0**-53)) if laplace else drawn)

    seeds = {
        "direction's seed": [step.seed for step in steps],
        "run's seed + step": [(public_seed + step.index) % 2**64 for step in steps],
        "step": [step.index for step in steps],
    }
    if K > 1:
        seeds["last direction's seed"] = [seeds_of(step.seed, K)[-1] for step in steps]
    for generator, draw in GENERATORS.items():
        for what, values in seeds.items():
            yield guess(f"{generator}({what})", [draw(seed, K, laplace) for seed in values])
        yield guess(f"{generator}(run's seed), one stream", draw(public_seed, len(steps) * K, laplace))
    if sizes:
        for what, values in seeds.items():
            later = [_torch(seed, K, laplace, sizes) for seed in values]
            yield guess(f"torch manual_seed({what}), after the direction", later)
    nobody = np.empty((0, K) if K > 1 else 0)
    mechanism = noisy(plan.mechanism)
    assert not isinstance(mechanism, GaussianVectorMechanism)
    for secret in dict.fromkeys((public_seed, 0, 1, 42)):
        noise = Streams.not_private(public_seed, secret).noise
        own = np.array([mechanism.release(nobody, noise.at(step.index)) for step in steps]) / scale(mechanism)
        yield Guess(f"dpzo's repeatable streams, secret seed {secret}", own.reshape(len(steps), K))


def audit_seeds(
    plan: Plan, steps: Sequence[Step], public_seed: int, sizes: Sequence[int] = (), alpha: float = ALPHA
) -> list[Finding]:
    """Try every guess on a transcript: the finding of each that explains the releases, or one that says none does.

    All guesses together give a false alarm with probability at most ``alpha``. A hundred steps are enough where the
    sums are no larger than the noise; where they are r times larger, about 50 r^2.

    Raises:
        Refusal: steps without scalars (DPGD-0th's), or a plan without noise.
    """
    y = _released(plan, steps)
    tried = list(guesses(plan, steps, public_seed, sizes))
    found = [against(f"noise from {guess.name}", len(tried) * _p(plan, y, guess), alpha) for guess in tried]
    caught = [finding for finding in found if not finding.passed]
    most = max(finding.found for finding in found)
    return caught or [Finding(f"noise from {len(tried)} known seeds", "-log10 p", found[0].claimed, most)]


def recovered_sums(plan: Plan, steps: Sequence[Step], guess: Guess) -> Floats:
    """(T, K) clipped sums, in units of the derivative, that ``guess`` leaves of the releases: the attack's loot."""
    return np.asarray((_released(plan, steps) - guess.noise) * per_step(plan, steps, scale))


def _released(plan: Plan, steps: Sequence[Step]) -> Floats:
    y = released(plan, steps)
    if not y.size or len(y) < len(steps):
        raise Refusal("steps that released scalars", "none", "A transcript without scalars has no noise to look at.")
    return y


def _p(plan: Plan, y: Floats, guess: Guess) -> float:
    g = guess.noise
    if isinstance(plan.mechanism, LaplaceMechanism):
        g = ndtri(np.clip(stats.laplace.cdf(g), 2.0**-53, 1 - 2.0**-53))
    return min(1.0, 2 * float(stats.norm.sf(abs((y * g).sum()) / np.linalg.norm(y))))
