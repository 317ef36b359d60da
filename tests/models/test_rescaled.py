"""The change of coordinates x = x_0 + s w: the same loss, another conditioning, the same privacy."""

import pytest
import torch

import dpzo
from dpzo.models.quadratic import Quadratic
from dpzo.models.rescaled import Rescaled

SPECTRUM = torch.tensor([100.0, 1.0, 1.0, 1.0], dtype=torch.float64)
RECORDS = torch.randn(200, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1


def quadratic():
    return Quadratic(SPECTRUM, torch.zeros(4, dtype=torch.float64))


def test_the_loss_at_w_is_the_loss_at_x():
    scale = SPECTRUM.rsqrt()
    rescaled, plain = Rescaled(quadratic(), {"x": scale}), quadratic()
    w = torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=torch.float64)
    rescaled.params["x"].copy_(w)
    plain.params["x"].copy_(scale * w)
    assert torch.equal(rescaled.losses(RECORDS), plain.losses(RECORDS))
    assert torch.equal(rescaled.sync().params["x"], plain.params["x"])


def test_unit_scale_trains_bit_for_bit_as_without():
    def train(model):
        plan = dpzo.dpzero(
            n=200,
            steps=20,
            step_size=1e-3,
            zo_eps=1e-3,
            clip_threshold=10.0,
            noise_multiplier=1.0,
            relation=dpzo.Relation.REPLACE_ONE,
        )
        return dpzo.digest(dpzo.run(plan, model, RECORDS, dpzo.Streams.not_private(1, 2)))

    assert train(quadratic()) == train(Rescaled(quadratic(), {"x": torch.ones(4, dtype=torch.float64)}))


def test_a_good_scale_reaches_the_minimum_that_a_stiff_coordinate_keeps_away():
    def excess(model, inner, step_size):
        plan = dpzo.mezo(n=200, steps=150, step_size=step_size, zo_eps=1e-3)
        for _ in dpzo.run(plan, model, RECORDS, dpzo.Streams.not_private(3, 4)):
            pass
        inner = model.sync() if isinstance(model, Rescaled) else inner
        return float(inner.losses(RECORDS).mean() - inner.minimum(RECORDS))

    stiff = quadratic()
    without = excess(stiff, stiff, 2e-3)  # 1e-2 diverges: the stiff coordinate decides
    inner = quadratic()
    with_scale = excess(Rescaled(inner, {"x": SPECTRUM.rsqrt()}), inner, 0.15)
    assert with_scale < 0.01 * without


def test_a_missing_or_misshapen_scale_is_refused():
    with pytest.raises(dpzo.Refusal, match="none"):
        Rescaled(quadratic(), {})
    with pytest.raises(dpzo.Refusal, match=r"\(3,\)"):
        Rescaled(quadratic(), {"x": torch.ones(3)})
