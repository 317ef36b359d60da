"""The mean of the later iterates, against numpy."""

import numpy as np
import pytest
import torch

import dpzo
from dpzo import Streams
from dpzo.averaging import TailAverage
from dpzo.models.quadratic import Quadratic
from dpzo.parameters import Parameters


@pytest.mark.parametrize("first", [0, 1, 7, 19])
def test_it_is_the_mean_of_the_iterates_from_first_on(first: int) -> None:
    model = Quadratic(torch.linspace(0.1, 1.0, 6), torch.ones(6))
    data = torch.zeros(4, 6)
    plan = dpzo.mezo(n=4, steps=20, step_size=0.05, zo_eps=1e-3)
    average, iterates = TailAverage(model.params, first), []
    for step in dpzo.run(plan, model, data, Streams.not_private(1, secret_seed=2)):
        average.add(step.index)
        iterates.append(model.params["x"].double().numpy().copy())
    average.apply()
    assert average.count == 20 - first
    np.testing.assert_allclose(model.params["x"].numpy(), np.mean(iterates[first:], 0), rtol=1e-6)
    assert np.ptp(iterates, 0).min() > 1e-3


def test_with_nothing_to_average_the_last_iterate_stays() -> None:
    params = Parameters({"x": torch.ones(3)})
    average = TailAverage(params, first=5)
    params["x"].mul_(2)
    average.add(4)
    average.apply()
    assert torch.equal(params["x"], torch.full((3,), 2.0))


def test_averaging_changes_no_iterate_and_does_not_drift() -> None:
    params = Parameters({"x": torch.full((2,), 0.1), "y": torch.full((1,), 1000.1, dtype=torch.float64)})
    average = TailAverage(params, first=0)
    before = params.snapshot()
    for index in range(1000):
        average.add(index)
    assert all(torch.equal(t, before[name]) for name, t in params.items())
    average.apply()
    assert all(torch.equal(t, before[name]) for name, t in params.items())
