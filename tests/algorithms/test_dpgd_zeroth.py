"""DPGD-0th's release: what floating point does to a vector of noise must not tell what it was added to."""

import numpy as np
import pytest
import torch

from dpzo import GaussianDirection, Relation, Streams, dpgd_zeroth, run
from dpzo.algorithms import STEPS
from dpzo.algorithms.dpgd_zeroth import noise_vector, step
from dpzo.directions import SphereDirection
from dpzo.estimators import two_point
from dpzo.mechanisms import GRID, GaussianVectorMechanism
from dpzo.noise import rounded_gaussian
from dpzo.parameters import Parameters
from dpzo.randomness import OsEntropy, SeededEntropy
from dpzo.stages import Stage
from tests.chance import ALPHA, correlation_p, ks_p, scale_p

C = 0.75
DIRECTIONS = pytest.mark.parametrize("direction", [GaussianDirection(), SphereDirection()])


class Slope:
    """f(x; w) = +- w: a record's derivative along u is w / lambda, whatever u and x are. Weights start at zero."""

    made_up = None  # which side it is, is told by the number of the call

    def __init__(self, d):
        self.params, self.calls = Parameters({"x": torch.zeros(d)}), 0

    def losses(self, records):
        self.calls += 1
        return (1.0 if self.calls % 2 else -1.0) * records


def added_in_floating_point(model, records, us, stage, divisor, mechanism, noise):
    """The step as it was: d float32 numbers of noise, and the sum added to each of them in float32."""
    (u,) = us
    v, bound = two_point(model, records, u, stage.zo_eps), mechanism.clip_threshold / u.norm()
    s = float(np.clip(v, -bound, bound).sum())
    g = noise_vector(model.params, mechanism.noise_multiplier * mechanism.clip_threshold / divisor, noise)
    u.add_(g, s / divisor)
    for name, tensor in model.params.items():
        tensor.data.sub_(g[name], alpha=stage.step_size)
    return ()


def seems_there(record, secret, d=600_000, n=16):
    """Run one step and guess from its iterate alone whether the record was 1 or 0; the others are 0.

    If it was 1, x_j = -(g_j + p_j) with a public p_j. Where x_j is much smaller than p_j, g_j was a float32 number near
    -p_j, so -x_j - p_j lies on the coarse grid of such numbers, to within the fine grid of x_j. If it was 0,
    -x_j - p_j is anywhere between.
    """
    plan = dpgd_zeroth(
        n=n, steps=1, step_size=n, zo_eps=0.5, clip_threshold=1.0, noise_multiplier=5.0, relation=Relation.ZERO_OUT
    )
    assert plan.epsilon(0.9 / n) < 0.06
    model, data = Slope(d), torch.zeros(n, dtype=torch.float64)
    data[0] = record
    (taken,) = run(plan, model, data, Streams.not_private(1, secret))
    u = plan.direction.draw({"x": torch.zeros(d)}, taken.seed)
    scale = np.float32(u.factor / u.norm())
    normals = torch.cat([block for _, _, block in u.normals()]).numpy()
    fused, rounded = normals.astype(float) * float(scale), (normals * scale).astype(float)  # as the processor has it
    return max(share_among_floats(model.params["x"].double().numpy(), p) for p in (fused, rounded)) > 0.9


def share_among_floats(x, p):
    small = np.abs(x) < np.abs(p) / 8
    g = -x[small] - p[small]
    off = np.abs(g - g.astype(np.float32).astype(float)) / np.spacing(np.abs(g).astype(np.float32))
    return (off < 0.13).mean()  # off is at most 1/2, so chance alone gives one in four


def right_guesses(trials):
    return sum(seems_there(record, secret) == bool(record) for secret in range(trials // 2) for record in (0.0, 1.0))


def test_the_rounding_of_an_iterate_does_not_tell_who_was_there(monkeypatch):
    """Kills: noise and sum added in float32: all guesses are right then, at a claimed epsilon of 0.06."""
    monkeypatch.setitem(STEPS, "dpgd-0th", added_in_floating_point)
    assert right_guesses(30) == 30
    monkeypatch.setitem(STEPS, "dpgd-0th", step)
    assert not any(seems_there(record, secret) for secret in range(15) for record in (0.0, 1.0))


def moved(records, entropy, direction, d=3, multiplier=4.0):
    """What one step at step size 1 subtracts from weights in double precision, and u."""
    model = Slope(d)
    model.params = Parameters({"x": torch.zeros(d, dtype=torch.float64)})
    u = direction.draw(model.params, 7)
    values = torch.tensor(records, dtype=torch.float64)
    step(model, values, (u,), Stage(1, 1.0, 1.0), 1.0, GaussianVectorMechanism(C, multiplier), entropy)
    exact = {"x": torch.zeros(d, dtype=torch.float64)}
    u.add_(exact, 1.0)
    return -model.params["x"].numpy(), exact["x"].numpy()


@DIRECTIONS
@pytest.mark.parametrize("records", [[], [0.1], [5.0, -0.2, float("nan")]], ids=["empty", "one", "three"])
def test_along_u_a_step_releases_the_sum_on_the_grid_and_across_it_noise_alone(direction, records):
    """Kills: noise across u that meets the sum; a sum off the grid; a clip of v instead of v u."""
    for seed in range(5):
        (move, u), (noise, _) = (moved(rows, SeededEntropy(seed), direction) for rows in (records, []))
        norm = np.linalg.norm(u)
        expected = sum(round(np.clip(v * norm, -C, C) / C * GRID) for v in records if v == v)
        along = (move @ u / norm) * (GRID / C)
        assert along == pytest.approx(expected + rounded_gaussian(4.0 * GRID, 1, SeededEntropy(seed))[0], abs=1e-2)
        np.testing.assert_allclose(move - noise, expected * (C / GRID) * u / norm, atol=1e-6)


@pytest.mark.statistical
@DIRECTIONS
def test_the_noise_of_a_step_is_normal_in_every_direction(direction):
    """Kills: nothing across u; the part along u drawn twice, or left at its grid's step; coordinates that depend."""
    sample, source = np.empty((3000, 3)), OsEntropy()
    for row in sample:
        row[:], u = moved([], source, direction)
    sample /= 4.0 * C
    axes = np.linalg.qr(np.stack([u, [1.0, 0, 0], [0, 1.0, 0]], axis=1))[0]

    def fits(sample):
        rotated = sample @ axes
        parts = [*rotated.T, *sample.T]
        ps = [ks_p(part, "norm") for part in parts] + [scale_p(part, 1.0) for part in parts]
        ps += [correlation_p(rotated[:, i], rotated[:, j]) for i, j in ((0, 1), (0, 2), (1, 2))]
        return min(ps) > ALPHA / len(ps)

    unit = axes[:, :1]
    assert fits(sample)
    assert not fits(sample - sample @ unit @ unit.T)
    assert not fits(sample + 0.3 * sample @ unit @ unit.T)
