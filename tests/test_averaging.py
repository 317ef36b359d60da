import pytest
import torch

from dpzo.averaging import TailAverage
from dpzo.parameters import Parameters


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_mean_of_the_later_iterates(dtype):
    params = Parameters({"x": torch.zeros(3, dtype=dtype), "y": torch.zeros(2, 2, dtype=dtype)})
    average = TailAverage(params, first=2)
    for index in range(6):
        for t in params.values():
            t.fill_(2.0**index)
        average.add(index)
    average.apply()
    for t in params.values():
        assert torch.equal(t, torch.full_like(t, (4 + 8 + 16 + 32) / 4))


def test_nothing_to_average_changes_nothing():
    params = Parameters({"x": torch.ones(3)})
    average = TailAverage(params, first=5)
    params["x"].fill_(7.0)
    average.add(4)
    average.apply()
    assert torch.equal(params["x"], torch.full((3,), 7.0))
