"""Directional derivatives of each record's loss, from forward passes alone."""

from collections.abc import Sequence

import numpy as np
import torch

from dpzo.directions import Drawn
from dpzo.types import Floats, LossModel, Records


def two_point(model: LossModel, records: Records, u: Drawn, zo_eps: float) -> Floats:
    """(f(x + lambda u; xi_i) - f(x - lambda u; xi_i)) / (2 lambda) for each record, shape (b,), float64.

    The model's parameters are the same bits afterwards as before.

    Source: Zhang et al. 2024, the two-point estimator without its trailing factor u; exact on quadratics.
    """
    with torch.no_grad():
        with model.params.moved(u, +zo_eps):
            above = model.losses(records).double().cpu().numpy()
        with model.params.moved(u, -zo_eps):
            below = model.losses(records).double().cpu().numpy()
    with np.errstate(invalid="ignore", over="ignore"):  # infinities are the mechanism's business, by rule
        return np.asarray((above - below) / (2 * zo_eps))


def two_points(model: LossModel, records: Records, us: Sequence[Drawn], zo_eps: float) -> Floats:
    """``two_point`` along each of K directions, shape (b, K)."""
    return np.stack([two_point(model, records, u, zo_eps) for u in us], axis=1)
