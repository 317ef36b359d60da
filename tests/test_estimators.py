import warnings

import numpy as np
import pytest
import torch

from dpzo import GaussianDirection, ModuleModel, SphereDirection
from dpzo.estimators import two_point, two_points
from dpzo.models.quadratic import Quadratic
from tests.chance import hoeffding

BOTH = pytest.mark.parametrize("direction", [GaussianDirection(), SphereDirection()])


def quadratic(d=40, records=17, dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)
    spectrum = 1 / torch.arange(1, d + 1, dtype=dtype)
    model = Quadratic(spectrum, torch.randn(d, generator=generator, dtype=dtype))
    return model, torch.randn(records, d, generator=generator, dtype=dtype) + 1


@BOTH
@pytest.mark.parametrize("zo_eps", [1e-2, 1.0, 30.0])
def test_exact_on_a_quadratic(direction, zo_eps):
    model, records = quadratic()
    u = direction.draw(model.params, 9)
    dense = {"x": torch.zeros(40, dtype=torch.float64)}
    u.add_(dense, 1.0)  # u in float64, as the model sees it
    exact = ((model.params["x"] - records) * model.spectrum) @ dense["x"]
    got = two_point(model, records, u, zo_eps)
    assert got.shape == (17,)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, exact.numpy(), rtol=1e-9, atol=1e-9 * float(exact.abs().mean()))


def test_parameters_are_the_same_bits_afterwards():
    model, records = quadratic(dtype=torch.float32)
    before = model.params["x"].clone()
    two_point(model, records, GaussianDirection().draw(model.params, 9), 1e-3)
    assert torch.equal(model.params["x"], before)


def test_a_records_derivative_does_not_depend_on_the_others():
    model, records = quadratic()
    u = GaussianDirection().draw(model.params, 9)
    whole = two_point(model, records, u, 0.1)
    for i in range(len(records)):
        assert two_point(model, records[i : i + 1], u, 0.1)[0] == pytest.approx(whole[i], rel=1e-12)


def test_an_empty_batch_gives_no_values():
    model, records = quadratic()
    us = [GaussianDirection().draw(model.params, seed) for seed in range(3)]
    assert two_point(model, records[:0], us[0], 0.1).shape == (0,)
    assert two_points(model, records[:0], us, 0.1).shape == (0, 3)


def test_along_several_directions_it_is_one_column_each():
    """Kills: a later direction tried from where an earlier one left the parameters; rows and columns exchanged."""
    model, records = quadratic(dtype=torch.float32)
    us = [SphereDirection().draw(model.params, seed) for seed in range(3)]
    before = model.params["x"].clone()
    columns = two_points(model, records, us, 0.1)
    assert columns.shape == (17, 3)
    assert columns.dtype == np.float64
    assert torch.equal(model.params["x"], before)
    for u, column in zip(us, columns.T, strict=True):
        assert np.array_equal(column, two_point(model, records, u, 0.1))
    assert np.abs(np.diff(columns)).min() > 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e308])
def test_a_broken_loss_touches_no_other_record_and_warns_of_nothing(bad):
    """Kills: a warning, which would show in a log that some record's loss overflows."""

    class Broken(type(quadratic()[0])):
        calls = 0

        def losses(self, records):
            self.calls += 1
            losses = super().losses(records)
            losses[3] = bad if self.calls % 2 else -bad
            return losses

    sound, records = quadratic()
    broken = Broken(sound.spectrum, sound.params["x"])
    u = GaussianDirection().draw(sound.params, 9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = two_point(broken, records, u, 0.1)
    others = np.arange(len(records)) != 3
    assert np.array_equal(got[others], two_point(sound, records, u, 0.1)[others])
    assert not np.isfinite(got[3])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_losses_are_subtracted_in_float64(dtype):
    """Kills: a difference taken in the losses' own type, where 1 less a little is 1."""
    little, losses = torch.finfo(dtype).eps / 8, []
    model = ModuleModel(torch.nn.Linear(3, 1), lambda module, records: losses.pop(0).expand(len(records)))
    losses += [torch.tensor(1.0, dtype=dtype), torch.tensor(little, dtype=dtype)]
    got = two_point(model, torch.ones(4, 3), GaussianDirection().draw(model.params, 1), 0.5)
    assert got.dtype == np.float64
    assert got.tolist() == [1 - little] * 4


@pytest.mark.statistical
def test_two_point_times_u_is_unbiased():
    """E v u = the gradient on the sphere. Kills: a difference over lambda instead of 2 lambda; a lost sign."""
    d, draws = 2, 3000
    spectrum = torch.tensor([1.0, 3.0], dtype=torch.float64)
    model = Quadratic(spectrum, torch.tensor([1.0, -1.0], dtype=torch.float64))
    record = torch.zeros(1, d, dtype=torch.float64)
    gradient = model.gradient(record).numpy()
    total = np.zeros(d)
    for seed in range(draws):
        u = SphereDirection().draw(model.params, seed)
        total += two_point(model, record, u, 1.0) * u.dense()["x"].numpy()
    tolerance = hoeffding(draws, 2 * d * np.linalg.norm(gradient), tests=d)  # |v| <= |g| sqrt(d), |u_i| <= sqrt(d)
    assert np.abs(total / draws - gradient).max() < tolerance
    assert np.abs(2 * total / draws - gradient).max() > tolerance, "divided by lambda"
    assert np.abs(-total / draws - gradient).max() > tolerance, "sign"
