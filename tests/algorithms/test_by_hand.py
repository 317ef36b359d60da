"""Each algorithm against its box, recomputed with numpy from the seeds and the seeded noise."""

import numpy as np
import pytest
import torch

from dpzo import Relation, Streams, dpgd_zeroth, dpzero, mezo, run
from dpzo.algorithms.dpgd_zeroth import noise_vector
from dpzo.models.quadratic import Quadratic
from dpzo.parameters import Parameters
from tests.algorithms.hand import (
    ALPHA,
    BATCHES,
    COMMON,
    DATA,
    DIRECTIONS,
    LAMBDA,
    PRIVATE,
    SIGMA,
    SPECTRUM,
    START,
    D,
    batches,
    clip,
    normal,
    trained,
    two_point,
    u_of,
)


@DIRECTIONS
@BATCHES
@pytest.mark.parametrize("C", [0.2, 100.0])
def test_dpzero(direction, batch_size, C):
    plan = dpzero(**COMMON, **PRIVATE, clip_threshold=C, batch_size=batch_size, direction=direction)
    x, steps = trained(plan)
    streams, y, step = Streams.not_private(4, 5), START.numpy().copy(), C / 2**24
    for t, (records, divisor) in enumerate(batches(batch_size, streams)):
        u = u_of(direction, streams.direction_seed(t))  # line 2
        z = step * round(SIGMA * 2**24 * normal(streams.noise.at(t).bits(128)))  # line 3
        v = two_point(y, u, records)  # line 4
        s = (sum(step * round(clip(v_i, C) / step) for v_i in v) + z) / divisor
        y = y - ALPHA * s * u  # line 5
        assert steps[t].seed == streams.direction_seed(t)
        assert steps[t].scalars == pytest.approx((s,), rel=1e-9)
    np.testing.assert_allclose(x, y, rtol=1e-9)


@DIRECTIONS
@BATCHES
@pytest.mark.parametrize("C", [0.5, 300.0])
def test_dpgd_zeroth(direction, batch_size, C):
    plan = dpgd_zeroth(**COMMON, **PRIVATE, clip_threshold=C, batch_size=batch_size, direction=direction)
    x, steps = trained(plan)
    streams, y = Streams.not_private(4, 5), START.numpy().copy()
    for t, (records, divisor) in enumerate(batches(batch_size, streams)):
        u = u_of(direction, streams.direction_seed(t))  # line 2
        g = [v_i * u for v_i in two_point(y, u, records)]  # line 3
        z = C * SIGMA / divisor * streams.noise.at(t).normal(D)  # line 4
        y = y - ALPHA * (sum(clip(g_i, C) for g_i in g) / divisor + z)  # line 5
        assert steps[t].scalars == ()
    np.testing.assert_allclose(x, y, rtol=1e-9)


@DIRECTIONS
@BATCHES
def test_mezo(direction, batch_size):
    x, steps = trained(mezo(**COMMON, batch_size=batch_size, direction=direction))
    streams, y = Streams.not_private(4, 5), START.numpy().copy()
    for t, (records, divisor) in enumerate(batches(batch_size, streams)):
        u = u_of(direction, streams.direction_seed(t))
        s = sum(two_point(y, u, records)) / divisor
        y = y - ALPHA * s * u
        assert steps[t].scalars == pytest.approx((s,), rel=1e-9)
    np.testing.assert_allclose(x, y, rtol=1e-9)


@DIRECTIONS
@BATCHES
def test_dpzero_without_clip_and_noise_is_mezo(direction, batch_size):
    C = 64.0
    free = {"clip_threshold": C, "noise_multiplier": 1e-18, "relation": Relation.ADD_REMOVE}
    x, steps = trained(dpzero(**COMMON, **free, batch_size=batch_size, direction=direction))
    y, plain = trained(mezo(**COMMON, batch_size=batch_size, direction=direction))
    np.testing.assert_allclose(x, y, rtol=0, atol=1e-5)
    assert [s.seed for s in steps] == [s.seed for s in plain]
    grid = len(DATA) * C / 2**24 / (batch_size or len(DATA))  # all that is left of the clip and the noise
    assert [s.scalars[0] for s in steps] == pytest.approx([s.scalars[0] for s in plain], rel=0, abs=grid)


def test_dpgd_zeroths_noise_has_independent_coordinates():
    """Kills: one scalar of noise for all coordinates, which would be DPZero's noise at DPGD-0th's price."""
    plan = dpgd_zeroth(**COMMON, clip_threshold=1e-9, noise_multiplier=1e9, relation=Relation.ADD_REMOVE)
    model = Quadratic(SPECTRUM, START)
    next(run(plan, model, DATA, Streams.secure(1)))
    moves = (model.params["x"] - START).tolist()
    assert len({round(move, 9) for move in moves}) == D


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_dpgd_zeroths_noise_is_never_coarser_than_float32(dtype):
    """Kills: noise drawn in the weights' type, whose few values would show the sum between them."""
    noise = noise_vector(Parameters({"x": torch.ones(4, 500, dtype=dtype)}), 0.5, Streams.not_private(0, 1).noise)["x"]
    assert noise.shape == (4, 500)
    assert noise.dtype == torch.promote_types(dtype, torch.float32)
    assert noise.unique().numel() == 2000
    expected = 0.5 * Streams.not_private(0, 1).noise.normal(2000)
    np.testing.assert_allclose(noise.double().flatten().numpy(), expected, rtol=1e-6)


class Slopes:
    """f(x + lambda u) - f(x - lambda u) = 2 lambda xi exactly, whatever x is rounded to: records are derivatives."""

    made_up = None  # which side it is, is told by the number of the call

    def __init__(self):
        self.params, self.calls = Parameters({"x": torch.ones(1, dtype=torch.bfloat16)}), 0

    def losses(self, records):
        self.calls += 1
        return (LAMBDA if self.calls % 2 else -LAMBDA) * records


class FixedNoise:
    secret = False

    def __init__(self, value):
        self.value = value

    def at(self, step):
        return self

    def uniform(self, size):
        raise AssertionError("nothing to sample")

    def normal(self, size):
        return np.full(size, self.value)


def test_dpgd_zeroth_rounds_after_the_noise():
    """Kills: the private sum rounded to the weights' type before it meets the noise.

    Near 1 the next bfloat16 is one unit away. A sum of 0.4 units and noise of 0.4 units together reach it; rounded one
    by one, neither does, and two neighbouring sums around half a unit would come out a whole unit apart.
    """
    unit, ends = 2.0**-7, set()
    for slope, noise in ((0.4, 0.4), (0.4, -0.4), (-0.4, 0.4), (-0.4, -0.4)):  # u is +1 or -1
        plan = dpgd_zeroth(**{**COMMON, **PRIVATE, "n": 1, "steps": 1, "step_size": 1.0}, clip_threshold=1.0)
        model, data = Slopes(), torch.tensor([slope * unit], dtype=torch.float64)
        list(run(plan, model, data, Streams(0, FixedNoise(0), FixedNoise(noise * unit / SIGMA))))
        ends.add(float(model.params["x"][0]))
    assert ends == {1 - unit, 1.0, 1 + unit}
