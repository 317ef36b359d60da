"""Lemma C.1: the moments of the u that dpzo draws, with sound bounds (Hoeffding on the sphere, median of means else).

Zhang et al. 2024, Appendix C: for a fixed vector a,
E u = 0, E u u' = I, E (u'a) u = a, E (u'a)^2 u u' = (2 a a' + |a|^2 I) d / (d+2) on the sphere and without the factor
for Gaussian u. Derived, for any a, in test_lemma_c1_derived.py.
"""

import numpy as np
import pytest
import torch
from scipy import stats

from dpzo import GaussianDirection, SphereDirection
from dpzo.directions import ahead
from tests.chance import ALPHA, binomial_p, hoeffding, ks_p, median_of_means

D = 3
DRAWS = 8_000
A = np.array([0.6, 0.0, 0.8])  # |a| = 1
H = np.array([[1.0, -0.5, 0.3], [-0.5, 0.2, 0.4], [0.3, 0.4, 0.6]])  # indefinite; its norm is below 1.3
PAIRS = [(i, j) for i in range(D) for j in range(i, D)]


@pytest.fixture(scope="module")
def sphere():
    like = {"x": torch.zeros(2), "y": torch.zeros(1)}
    draws = (u.dense() for (u,) in ahead(SphereDirection(), like, range(DRAWS)))
    return np.array([[*u["x"].tolist(), *u["y"].tolist()] for u in draws])


@pytest.fixture(scope="module")
def gaussian():
    # Coordinates are independent, so one long draw is many short ones.
    return GaussianDirection().draw({"x": torch.zeros(400_000, D)}, 1).dense()["x"].double().numpy()


def expected(factor):
    return factor * (2 * np.outer(A, A) + np.eye(D))


@pytest.mark.statistical
def test_first_and_second_moments_on_the_sphere(sphere):
    """Kills: the unit sphere (radius 1, not sqrt(d)); a reused seed; coordinates of one sign."""
    assert np.abs(sphere.mean(0)).max() < hoeffding(DRAWS, 2 * np.sqrt(D), tests=D)
    for i, j in PAIRS:
        width = D  # u_i^2 lies in [0, d], u_i u_j in [-d/2, d/2]
        off = abs((sphere[:, i] * sphere[:, j]).mean() - (i == j))
        assert off < hoeffding(DRAWS, width, tests=len(PAIRS))
    unit = sphere / np.sqrt(D)
    assert abs(np.square(unit[:, 0]).mean() - 1) > hoeffding(DRAWS, D)
    assert abs(np.abs(sphere[:, 0]).mean()) > hoeffding(DRAWS, 2 * np.sqrt(D), tests=D)


@pytest.mark.statistical
def test_a_coordinate_on_the_sphere_is_beta(sphere):
    """Kills: a cube's surface instead of a sphere's; Gaussian u (in so low a dimension)."""
    law = stats.beta(0.5, (D - 1) / 2).cdf
    for i in range(D):
        assert ks_p(np.square(sphere[:, i]) / D, law) > ALPHA
    cube = np.random.default_rng(0).uniform(-1, 1, (DRAWS, D))
    cube *= np.sqrt(D) / np.linalg.norm(cube, axis=1, keepdims=True)
    assert ks_p(np.square(cube[:, 0]) / D, law) < ALPHA
    z = np.random.default_rng(0).standard_normal(DRAWS)
    assert ks_p(np.square(z) / D, law) < ALPHA


@pytest.mark.statistical
def test_fourth_moments_on_the_sphere(sphere):
    """Kills: the Gaussian formula, without d / (d + 2)."""
    weight = np.square(sphere @ A)
    tolerance = hoeffding(DRAWS, D * D, tests=len(PAIRS))  # (u'a)^2 <= d, times a product of range d
    got = np.array([[(weight * sphere[:, i] * sphere[:, j]).mean() for j in range(D)] for i in range(D)])
    assert np.abs(got - expected(D / (D + 2))).max() < tolerance
    assert np.abs(got - expected(1)).max() > 2 * tolerance


@pytest.mark.statistical
def test_moments_of_the_gaussian(gaussian):
    """Kills: the sphere's formula, with d / (d + 2); sigma * 0.9; correlated neighbours."""

    def check(sample, mean, second_moment, tests):
        estimate, tolerance = median_of_means(sample, np.sqrt(second_moment), tests)
        return abs(estimate - mean) < tolerance

    assert all(check(gaussian[:, i], 0, 1, D) for i in range(D))
    weight = np.square(gaussian @ A)
    for i, j in PAIRS:
        product = gaussian[:, i] * gaussian[:, j]
        assert check(product, float(i == j), 2, len(PAIRS))
        assert check(product * gaussian[:, 0], 0, 15, len(PAIRS))
        # E (u'a)^4 u_i^2 u_j^2 <= E z^8 = 105, by Hoelder.
        assert check(weight * product, expected(1)[i, j], 105, len(PAIRS))
    product = np.square(gaussian[:, 2]) * weight
    assert not check(product, expected(D / (D + 2))[2, 2], 105, 1)
    assert not check(0.81 * np.square(gaussian[:, 2]), 1, 2, 1)
    assert not check((gaussian[:, 0] + 0.2 * gaussian[:, 1]) * gaussian[:, 1], 0, 2, 1)


@pytest.mark.statistical
def test_the_curvature_seen_by_a_step(sphere, gaussian):
    """E (u'a)^2 u'Hu = q (2 a'Ha + |a|^2 Tr H). Kills: the other law's q; 2 a'Ha left out, as if u'a and u'Hu were
    independent.
    """
    expected, alone = 2 * A @ H @ A + np.trace(H), np.trace(H)

    def products(u):
        return np.square(u @ A) * np.einsum("ni,ij,nj->n", u, H, u)

    # On the sphere |(u'a)^2 u'Hu| <= d^2 |H|. For Gaussian u its second moment is at most |H|^2 E z^4 (z^2 + w)^2, w
    # chi-square with 2 degrees of freedom: |H|^2 (105 + 2 * 15 * 2 + 3 * 8).
    got, tolerance = products(sphere).mean(), hoeffding(DRAWS, 2 * 1.3 * D**2)
    assert abs(got - expected * D / (D + 2)) < tolerance
    assert abs(got - alone * D / (D + 2)) > tolerance
    got, tolerance = median_of_means(products(gaussian), 1.3 * np.sqrt(189))
    assert abs(got - expected) < tolerance
    assert min(abs(got - expected * D / (D + 2)), abs(got - alone)) > tolerance


@pytest.mark.statistical
def test_the_estimator_is_unbiased(sphere):
    """E (u'a) u = a. Kills: u scaled to length 1 or d; the sign lost."""
    estimates = (sphere @ A)[:, None] * sphere
    tolerance = hoeffding(DRAWS, D * 2, tests=D)  # |u'a| |u_i| <= d
    assert np.abs(estimates.mean(0) - A).max() < tolerance
    assert np.abs(estimates.mean(0) / D - A).max() > tolerance
    assert np.abs((np.abs(sphere @ A)[:, None] * sphere).mean(0) - A).max() > tolerance


WIDE = 100  # in three dimensions |u'a| is at most 1.8, where the lemma's bound is still above 3


def lemma(level):
    """2 sqrt(2 pi) exp(-C^2 / 8) at |a| = 1, which says something from C = 3.6 on."""
    return 2 * np.sqrt(2 * np.pi) * np.exp(-(level**2) / 8)


def exactly(level, d):
    """P(|u'a| >= C): u_1^2 / d is Beta."""
    return stats.beta(0.5, (d - 1) / 2).sf(np.minimum(np.square(level) / d, 1))


def test_the_tail_bound_of_the_lemma():
    """P(|u'a| >= C) <= 2 sqrt(2 pi) exp(-C^2 / 8) by the exact law, in every dimension; it gives a factor 5 away.

    Kills: a factor below 1, an exponent of C^2 / 1.9, and so a bound times 1 / 6; what is between holds, too.
    """
    levels = np.linspace(0, 15, 3001)
    for d in (2, 3, WIDE, 10**4, 10**6):
        assert (exactly(levels, d) <= lemma(levels)).all()
        assert not (exactly(levels, d) <= lemma(levels) / 5.1).all()
    wide = exactly(levels, 10**6)
    assert not (wide <= 2 * np.sqrt(2 * np.pi) * np.exp(-(levels**2) / 1.9)).all()
    assert ((lemma(levels) / wide)[levels > 0] > 5).all()


@pytest.mark.statistical
@pytest.mark.parametrize("level", [1.0, 1.5, 2.0])
def test_the_tail_of_drawn_directions_is_the_exact_laws(level):
    """In 100 dimensions, by an exact binomial law. Kills: directions a tenth longer, and a tail of twice the mass."""
    drawn = ahead(SphereDirection(), {"x": torch.zeros(WIDE)}, range(DRAWS))
    along = np.abs([float(0.6 * (x := u.dense()["x"])[0] + 0.8 * x[-1]) for (u,) in drawn])
    p = float(exactly(level, WIDE))
    assert binomial_p(int((along >= level).sum()), DRAWS, p) > ALPHA
    assert binomial_p(int((along >= level).sum()), DRAWS, 2 * p if p < 0.3 else 1.2 * p) < ALPHA
    if level == 2:
        assert binomial_p(int((1.1 * along >= level).sum()), DRAWS, p) < ALPHA
