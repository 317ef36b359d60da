"""Each algorithm's box recomputed with numpy: what the tests of the algorithms share."""

import numpy as np
import pytest
import torch
from scipy import stats

from dpzo import GaussianDirection, Relation, SphereDirection, Streams, run
from dpzo.models.quadratic import Quadratic

N, D, T = 12, 6, 8
ALPHA, LAMBDA, SIGMA = 0.05, 0.1, 2.5
GENERATOR = torch.Generator().manual_seed(0)
DATA = torch.randn(N, D, generator=GENERATOR, dtype=torch.float64) + 1
SPECTRUM = 1 / torch.arange(1, D + 1, dtype=torch.float64)
START = torch.randn(D, generator=GENERATOR, dtype=torch.float64)
COMMON = {"n": N, "steps": T, "step_size": ALPHA, "zo_eps": LAMBDA}
PRIVATE = {"noise_multiplier": SIGMA, "relation": Relation.REPLACE_ONE}
DIRECTIONS = pytest.mark.parametrize("direction", [GaussianDirection(), SphereDirection()])
BATCHES = pytest.mark.parametrize("batch_size", [None, 3])


def f(x, record):
    return 0.5 * np.sum(SPECTRUM.numpy() * (x - record) ** 2)


def u_of(direction, seed):
    u = {"x": torch.zeros(D, dtype=torch.float64)}
    direction.draw({"x": torch.zeros(D)}, seed).add_(u, 1.0)
    return u["x"].numpy()


def two_point(x, u, records):
    return [(f(x + LAMBDA * u, ξ) - f(x - LAMBDA * u, ξ)) / (2 * LAMBDA) for ξ in records]


def clip(g, C):
    """clip_C(g) = g min{1, C / |g|}, for scalars and vectors."""
    length = np.linalg.norm(g)
    return g if length <= C else g * (C / length)


def normal(word):
    """The standard normal number of a 128-bit word: its last bit is the sign, the others a tail below 1/2."""
    return (-1) ** (word % 2) * stats.norm.isf((word // 2 + 0.5) / 2**128)


def batches(batch_size, streams):
    """(records, divisor) of each step."""
    for t in range(T):
        if batch_size is None:
            yield DATA.numpy(), N
        else:
            yield DATA.numpy()[streams.private.at(t).uniform(N) < batch_size / N], batch_size


def trained(plan, start=START, streams=None):
    model = Quadratic(SPECTRUM.to(start.dtype), start)
    steps = list(run(plan, model, DATA.to(start.dtype), streams or Streams.not_private(4, 5)))
    return model.params["x"].double().numpy(), steps
