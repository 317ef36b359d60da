"""Simulated runs lie on the exact curves, at every t, within 7 standard errors of their mean.

A normal mean strays by 7 standard errors with probability 3e-12, so by Bonferroni a test of 40 points has a nominal
false-alarm level below 1e-9. It is nominal, because a mean of some hundred skewed losses is only nearly normal: step
sizes stay below the threshold and seeds are fixed. The steps themselves are derived exactly in test_recursion.py; this
is a check that nothing was left out there. The distances seen are 1 to 4.4.
"""

import numpy as np
import pytest
import torch

from dpzo import GaussianDirection, Relation, SphereDirection, Streams, dp_aggzo, dpgd_zeroth, dpzero, run
from dpzo.models.quadratic import Quadratic
from dpzo.theory.quadratic import Law
from dpzo.theory.spectra import of, power_law

SIGMAS = 7.0


def draw(law, shape, generator):
    if law == "rademacher":
        return generator.integers(0, 2, shape).astype(np.float32) * 2 - 1
    z = generator.standard_normal(shape, dtype=np.float32)
    if law == "sphere":
        z *= np.sqrt(shape[-1]) / np.linalg.norm(z, axis=-1, keepdims=True)
    return z


def simulate(method, law, a, K, α, σ, steps, runs, seed=0):
    """(runs, steps + 1) losses of ``runs`` independent runs from e_0 = 1."""
    generator = np.random.default_rng(seed)
    a, e = a.astype(np.float32), np.ones((runs, len(a)), np.float32)
    losses = [e**2 @ a / 2]
    for _ in range(steps):
        g = a * e
        if method != "DP-GD":
            moves = np.zeros_like(e)
            for _ in range(K):
                u = draw(law, e.shape, generator)
                z = σ * generator.standard_normal((runs, 1), dtype=np.float32) if method == "DPZero" else 0.0
                moves += (np.einsum("rd,rd->r", u, g)[:, None] / K + z) * u
            g = moves
        if method != "DPZero":
            g = g + σ * generator.standard_normal(e.shape, dtype=np.float32)
        e = e - np.float32(α) * g
        losses.append(e**2 @ a / 2)
    return np.stack(losses, 1).astype(float)


def furthest(losses, curve):
    """The largest distance between the runs' mean and the curve, in standard errors; t = 0 has none."""
    error = losses.std(0, ddof=1) / np.sqrt(len(losses))
    return float((np.abs(losses.mean(0) - curve)[1:] / error[1:]).max())


def curve(law, a, K, α, σ, steps):
    return Law(of(a), law, K).trajectory(α, steps, np.ones_like(a)).loss(σ)


CASES = [("DPZero", law, d, 1) for law in ("gaussian", "sphere", "rademacher") for d in (10, 100)]
CASES += [("DPZero", "sphere", 10, 3), ("DPZero", "gaussian", 100, 5)]
CASES += [("DPZero", "sphere", 1000, 1), ("DPZero", "sphere", 10_000, 1)]
CASES += [("DPGD-0th", "sphere", 10, 1), ("DPGD-0th", "gaussian", 100, 1), ("DP-GD", "gradient", 100, 1)]


@pytest.mark.statistical
@pytest.mark.parametrize(("method", "law", "d", "K"), CASES)
def test_runs_lie_on_the_exact_curve(method, law, d, K):
    """Kills: another K; at d <= 100 noise 10 % higher; at d = 10, where they differ enough, another law of u."""
    a = power_law(d, 0.5).diagonal()
    runs, steps = {10: (20_000, 40), 100: (1500, 40), 1000: (150, 40), 10_000: (60, 30)}[d]
    α = 0.6 * min(1.0, Law(of(a), law, K).stable_below)
    σ = 1.0
    losses = simulate(method, law, a, K, α, σ, steps, runs)
    assert furthest(losses, curve(law, a, K, α, σ, steps)) < SIGMAS
    if d <= 100:
        assert furthest(losses, curve(law, a, K, α, 1.1 * σ, steps)) > SIGMAS
    if method != "DP-GD":
        assert furthest(losses, curve(law, a, K + 1, α, σ, steps)) > SIGMAS
    if d == 10:
        others = {"gaussian", "sphere", "rademacher"} - {law}
        assert all(furthest(losses, curve(other, a, K, α, σ, steps)) > SIGMAS for other in others)


@pytest.mark.statistical
def test_beyond_the_threshold_runs_grow_as_the_law_says():
    """For some steps: there the loss is a product of many factors, and its mean is soon carried by rare runs alone."""
    a = np.ones(10)
    α = 1.1 * Law(of(a)).stable_below
    losses = simulate("DPZero", "gaussian", a, 1, α, 0.0, 6, 20_000)
    exact = curve("gaussian", a, 1, α, 0.0, 6)
    assert exact[-1] > exact[0]
    assert furthest(losses, exact) < SIGMAS
    assert np.median(losses[:, -1]) < exact[0]  # the typical run still falls


def planned(name, n, steps, α, σ):
    """(plan, law): a threshold C that clips nothing, and the multiplier that makes sigma the noise on the mean."""
    C = 1024.0
    common = {"n": n, "steps": steps, "step_size": α, "zo_eps": 0.5, "relation": Relation.REPLACE_ONE}
    common |= {"clip_threshold": C, "noise_multiplier": σ * n / C}
    if name == "dp-aggzo":
        return dp_aggzo(**common, directions=3, direction=GaussianDirection()), ("gaussian", 3)
    if name == "dpgd-0th":
        return dpgd_zeroth(**common, direction=SphereDirection()), ("sphere", 1)
    return dpzero(**common, direction=SphereDirection()), ("sphere", 1)


@pytest.mark.statistical
@pytest.mark.parametrize("name", ["dpzero", "dpgd-0th", "dp-aggzo"])
def test_the_librarys_own_runs_lie_on_the_exact_curve(name):
    """``dpzo.run`` itself, in float32, with its exact noise. Kills: noise 25 % higher, a step size 25 % larger."""
    d, n, steps, runs, α, σ = 20, 8, 10, 150, 0.05, 8.0
    a = power_law(d, 0.5).diagonal()
    spectrum, generator = torch.tensor(a, dtype=torch.float32), torch.Generator().manual_seed(0)
    data = 1 + 0.3 * torch.randn(n, d, generator=generator)
    centre = data.double().mean(0).numpy()
    plan, (law, K) = planned(name, n, steps, α, σ)

    def loss(model):
        return a @ np.square(model.params["x"].double().numpy() - centre) / 2

    losses = []
    for seed in range(runs):
        model = Quadratic(spectrum, torch.zeros(d))
        before = loss(model)
        losses.append([before] + [loss(model) for _ in run(plan, model, data, Streams.not_private(seed, seed))])
    losses = np.array(losses)

    def exact(α, σ):
        return Law(of(a), law, K).trajectory(α, steps, centre**2).loss(σ)

    assert furthest(losses, exact(α, σ)) < SIGMAS
    assert furthest(losses, exact(α, 1.25 * σ)) > SIGMAS
    assert furthest(losses, exact(1.25 * α, σ)) > SIGMAS
