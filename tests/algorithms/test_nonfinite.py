"""A record whose loss overflows counts as 0, by rule: the run neither stops nor shows it."""

import math
from functools import partial

import pytest
import torch

from dpzo import Relation, Streams, dp_aggzo, dpgd_zeroth, dpzero, mezo, run
from dpzo.models.quadratic import Quadratic

pytestmark = pytest.mark.filterwarnings("error")  # a log is a release too

BAD = [math.nan, math.inf, -math.inf, 1e308, -1e308]


class Broken(Quadratic):
    """Some records' losses are not finite; which way the last was evaluated does not matter."""

    def __init__(self, bad, flip=False):
        super().__init__(torch.ones(4), torch.zeros(4))
        self.bad, self.flip, self.calls = bad, flip, 0

    def losses(self, records):
        losses = super().losses(records).double()
        self.calls += 1
        value = -self.bad if self.flip and self.calls % 2 else self.bad
        return torch.where(records[:, 0] > 5, value, losses)


def plan(algorithm):
    common = {"n": 6, "steps": 10, "step_size": 0.01, "zo_eps": 1e-3}
    if algorithm is mezo:
        return mezo(**common)
    common |= {"clip_threshold": 1.0, "noise_multiplier": 1.0, "relation": Relation.ADD_REMOVE}
    return algorithm(**common)


def several(clip):
    return partial(dp_aggzo, directions=3, clip=clip)


PRIVATE = [dpzero, dpgd_zeroth, several("jointly"), several("each")]


def trained(algorithm, model, data):
    steps = list(run(plan(algorithm), model, data, Streams.not_private(0, 1)))
    return model.params["x"], steps


@pytest.mark.parametrize("algorithm", [*PRIVATE, mezo])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("flip", [False, True])
def test_a_non_finite_loss_counts_as_zero(algorithm, bad, flip):
    data = torch.ones(6, 4)
    data[2] = 9.0
    x, steps = trained(algorithm, Broken(bad, flip), data)
    # A record whose loss never changes has derivative 0.
    zero, expected = trained(algorithm, Broken(7.0), data)
    assert torch.equal(x, zero)
    assert steps == expected
    assert x.isfinite().all()


@pytest.mark.parametrize("algorithm", PRIVATE)
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("flip", [False, True])
def test_all_records_broken(algorithm, bad, flip):
    x, steps = trained(algorithm, Broken(bad, flip), torch.full((6, 4), 9.0))
    assert len(steps) == 10
    assert x.isfinite().all()
    assert x.any(), "the noise is released all the same"
    assert all(math.isfinite(s) for step in steps for s in step.scalars)
