"""The tails of every loss against fifty digits: their stated precision is what the upper bound rests on."""

import math

import mpmath as mp
import numpy as np
import pytest

from dpzo.accounting.grid import cells
from dpzo.accounting.pairs import Adding, Binned, Gaussian, Laplace, Removing, Replacing
from dpzo.sampling import BallsAndBinsDpEvent, amplified

MUS = (1 / 966, 1 / 60, 0.1, 1.0, 10.0, 1000.0)
RATES = (1e-6, 0.01, 0.5, 0.999, 1.0)
KINDS = ("removing", "adding", "replacing", "removing laplace", "adding laplace")


def make(kind, mu, q):
    if kind == "replacing":
        return Replacing(mu, q)
    alone = Laplace(mu) if kind.endswith("laplace") else Gaussian(mu)
    return (Removing if kind.startswith("removing") else Adding)(alone, q)


def exact(loss, t):
    """P(L <= t), P(L > t), Q(L <= t), Q(L > t), by the definition of the laws."""
    t, q, N = mp.mpf(float(t)), mp.mpf(loss.q), mp.ncdf
    if isinstance(loss, Replacing):
        m = mp.mpf(loss.mu)
        x = (t / 2 + mp.asinh((1 - q) / q * mp.exp(m**2 / 2) * mp.sinh(t / 2))) / m
        return tuple((1 - q) * N(s * x) + q * N(s * (x + side * m)) for side in (-1, 1) for s in (1, -1))
    sign = 1 if isinstance(loss, Removing) else -1
    level = (mp.exp(sign * t) - (1 - q)) / q  # l below ln(level) is L below t, or above
    if level <= 0:
        b0, b1, a0, a1 = 0, 0, 1, 1
    elif isinstance(loss.alone, Gaussian):
        m, c = mp.mpf(loss.alone.mu), mp.log(level)
        b0, b1, a0, a1 = N(c / m + m / 2), N(c / m - m / 2), N(-c / m - m / 2), N(m / 2 - c / m)
    else:
        e, c = mp.mpf(loss.alone.e), mp.log(level)
        f0, f1 = mp.exp(-(e + c) / 2) / 2, mp.exp(-(e - c) / 2) / 2
        b0, b1, a0, a1 = (1 - f0, f1, f0, 1 - f1) if -e <= c < e else ((1, 1, 0, 0) if c >= e else (0, 0, 1, 1))
    mixed_below, mixed_above = (1 - q) * b0 + q * b1, (1 - q) * a0 + q * a1
    return (mixed_below, mixed_above, b0, a0) if sign == 1 else (a0, b0, mixed_above, mixed_below)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mu", MUS)
def test_tails_keep_their_stated_precision(kind, mu):
    """Kills: ln(expm1(t) + q) - ln q for the inner loss (2,400 units at mu = 1/60), and 1 - Phi for a tail."""
    generator = np.random.default_rng(0)
    with mp.workdps(50):
        for q in RATES:
            loss = make(kind, mu, q)
            low, high = loss.range(1e-30, 1e-30)
            near = generator.choice([-1, 1], 6) * q * min(mu, 1) * 10 ** generator.uniform(-3, 1, 6)
            at = np.concatenate([low + (high - low) * generator.random(6), near])
            for t, *found in zip(at, *loss.tails(at), strict=True):
                truth = exact(loss, t)
                # A composition's epsilon has room for a threshold that is off by so much (``Composition.slack``).
                around = [exact(loss, t + side * 64 * 2.0**-53 * max(-low, high)) for side in (-1, 1)]
                for smaller in (min((0, 1), key=lambda k: truth[k]), min((2, 3), key=lambda k: truth[k])):
                    if (tail := truth[smaller]) > 1e-290:
                        least, most = sorted(each[smaller] for each in around)
                        room = loss.units * (4 - mp.log(tail)) * mp.mpf(2) ** -53
                        assert least * (1 - room) <= mp.mpf(float(found[smaller])) <= most * (1 + room), (q, t)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("mu", "q"), [(0.1, 0.3), (2.0, 0.01), (1.0, 1.0)])
def test_the_grid_keeps_both_masses_and_raises_every_divergence(kind, mu, q):
    """Connecting the dots: P's and Q's mass are kept, and every hockey stick is at least the exact one.

    Kills: rounding to nearest, the two ends of a cell exchanged, Q's mass forgotten.
    """
    loss = make(kind, mu, q)
    low, high = loss.range(1e-25, 1e-25)
    h = (high - low) / 200
    grid = cells(loss, h, 1e-25, 1e-25)
    losses = (grid.start + np.arange(grid.p.size)) * grid.h
    assert grid.p.sum() + grid.infinite == pytest.approx(1, abs=1e-11)
    assert (grid.p * np.exp(-losses)).sum() == pytest.approx(1, rel=1e-6)
    for at in low + (high - low) * np.linspace(0.05, 0.95, 31):
        truth = exact(loss, at)
        stick = float(truth[1] - mp.exp(at) * truth[3])
        found = grid.infinite + float(np.maximum(grid.p * -np.expm1(at - losses), 0).sum())
        assert found >= stick * (1 - 1e-12)
        nearby = exact(loss, at - h)
        assert found <= float(nearby[1] - mp.exp(at - h) * nearby[3]) * (1 + 1e-6) + 1e-13


def test_the_ends_hold_what_they_say():
    for kind in ("removing", "adding", "replacing"):
        for cut in (1e-6, 1e-50):
            loss = make(kind, 0.7, 0.2)
            tails = loss.tails(np.array(loss.range(cut, cut)))
            assert tails.p_below[0] <= cut * (1 + 1e-9)
            assert tails.p_above[1] <= cut * (1 + 1e-9)
            assert math.isfinite(loss.range(cut, cut)[1])


@pytest.mark.parametrize("adding", [False, True])
def test_points_on_a_grid_raise_every_divergence(adding):
    event, cut = BallsAndBinsDpEvent(1.1, 12), 2.0**-40
    points = amplified(event, cut)[adding]
    low, high = Binned(event, adding).range(cut, cut)
    for cells_of_range in (50, 700):
        grid = Binned(event, adding).on_grid((high - low) / cells_of_range, cut, cut)
        for at in np.linspace(max(low, -1), min(high, 4) * 0.9, 23):
            stick = points.infinite + float(points.masses @ np.maximum(-np.expm1(at - points.losses), 0))
            found = grid.infinite + float(grid.p @ np.maximum(-np.expm1(at - grid.losses), 0))
            assert found >= stick * (1 - 1e-12)
            if cells_of_range == 700:
                assert found <= stick * 1.02 + 1e-9
