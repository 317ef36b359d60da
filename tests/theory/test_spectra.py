"""Spectra: exact sums over 10^9 eigenvalues from a few thousand groups, and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import digamma, zeta

from dpzo import Refusal
from dpzo.theory.quadratic import Law
from dpzo.theory.spectra import Spectrum, flat, of, power_law

EXPONENTS = [0.25, 0.5, 0.9, 1.0, 1 + 1e-13, 1.5, 3.0]


@pytest.mark.parametrize("exponent", EXPONENTS)
@pytest.mark.parametrize("d", [1, 4096, 4097, 5000, 10**5])
def test_grouping_keeps_the_trace_and_hardly_moves_other_sums(d, exponent):
    """Kills: midpoints instead of means; a group's first or last member left out; powers whose difference cancels."""
    spectrum, every = power_law(d, exponent), np.arange(1, d + 1) ** -exponent
    assert spectrum.d == d
    assert spectrum.trace == pytest.approx(every.sum(), rel=2e-14)
    assert spectrum.sum(spectrum.values**2) == pytest.approx((every**2).sum(), rel=1e-7)
    np.testing.assert_allclose(spectrum.diagonal(), every, rtol=1e-3)
    assert spectrum.largest == 1


def test_a_billion_eigenvalues_are_a_few_thousand():
    """The traces against closed forms: harmonic numbers and Hurwitz's zeta."""
    d = 10**9
    harmonic = power_law(d, 1.0)
    assert len(harmonic.values) < 20_000
    assert harmonic.d == d
    assert harmonic.trace == pytest.approx(digamma(d + 1) - digamma(1), rel=1e-13)
    assert power_law(d, 2.0).trace == pytest.approx(zeta(2) - zeta(2, d + 1), rel=1e-13)
    assert power_law(d, 0.5).trace == pytest.approx(2 * d**0.5 + zeta(0.5) + 0.5 * d**-0.5, rel=1e-12)
    assert flat(d).trace == d
    path = Law(harmonic).trajectory(0.5 * Law(harmonic).stable_below, 50, np.ones_like(harmonic.values))
    assert np.isfinite(path.loss(0.1)).all()
    assert (np.diff(path.loss(0.0)) < 0).all()


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("share", [0.1, 0.9])
def test_grouped_and_ungrouped_spectra_have_one_trajectory(exponent, share):
    d = 10**5
    grouped, every = power_law(d, exponent), of(np.arange(1, d + 1) ** -exponent)
    α = share * Law(every).stable_below
    assert Law(grouped).stable_below == pytest.approx(Law(every).stable_below, rel=1e-6)
    paths = [Law(s).trajectory(α, 60, np.ones_like(s.values)) for s in (grouped, every)]
    for of_sigma in (0.0, 1.0):
        np.testing.assert_allclose(paths[0].loss(of_sigma), paths[1].loss(of_sigma), rtol=1e-6)
        np.testing.assert_allclose(paths[0].squared_gradient(of_sigma), paths[1].squared_gradient(of_sigma), rtol=1e-6)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30).filter(any))
def test_the_effective_rank_lies_between_1_and_d(eigenvalues):
    spectrum = of(np.array(eigenvalues))
    assert 1 - 1e-12 <= spectrum.effective_rank <= spectrum.d * (1 + 1e-12)
    assert spectrum.trace == pytest.approx(sum(eigenvalues), rel=1e-12)


def test_effective_ranks_of_the_paper():
    """Orders d, sqrt(d) and log(d), each a constant factor from its name."""
    for d in (100, 10**4, 10**8):
        assert flat(d).effective_rank == d
        assert power_law(d, 0.0).effective_rank == d
        assert 1.8 < power_law(d, 0.5).effective_rank / np.sqrt(d) < 2
        assert 1 < power_law(d, 1.0).effective_rank / np.log(d) < 1.13


@pytest.mark.parametrize(
    ("values", "counts"),
    [
        ([1.0, -1e-9], [1, 1]),
        ([1.0, np.nan], [1, 1]),
        ([1.0, np.inf], [1, 1]),
        ([0.0, 0.0], [1, 1]),
        ([], []),
        ([1.0], [1, 2]),
        ([[1.0]], [[1]]),
        ([1.0, 2.0], [1, -1]),
        ([1.0, 2.0], [1, 0]),
        ([1.0, 2.0], [1, 1.5]),
        ([1.0, 2.0], [1, np.nan]),
        ([1.0, 2.0], [1, np.inf]),
    ],
)
def test_what_is_no_spectrum_is_refused(values, counts):
    with pytest.raises(Refusal):
        Spectrum(np.array(values), np.array(counts))


@pytest.mark.parametrize("d", [0, -1, 2.0, True, "3", None])
def test_dimensions_that_are_none(d):
    with pytest.raises(Refusal, match="dimension"):
        power_law(d, 1.0)
    with pytest.raises(Refusal, match="dimension"):
        flat(d)


@pytest.mark.parametrize("exponent", [-0.1, np.inf, np.nan])
def test_exponents_that_are_refused(exponent):
    with pytest.raises(Refusal, match="exponent"):
        power_law(10, exponent)


def test_a_numpy_integer_is_a_dimension():
    assert flat(np.int64(7)).d == power_law(np.int64(7), 1.0).d == 7


def test_a_diagonal_that_does_not_fit_in_memory_is_refused():
    with pytest.raises(Refusal, match=r"eigenvalues, one by one, that need 22,351\.7 GiB"):
        power_law(10**12, 1.0).diagonal()
