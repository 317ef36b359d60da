import math
import time
from itertools import pairwise

import dp_accounting
import mpmath
import pytest
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
from hypothesis import given
from hypothesis import strategies as st

import dpzo.accounting
from dpzo import Refusal, Relation
from dpzo.accounting import ACCOUNTANTS, calibrate, epsilon, gaussian_mu, paper_noise_multiplier

ADD, REPLACE, ZERO = Relation.ADD_REMOVE, Relation.REPLACE_ONE, Relation.ZERO_OUT
DELTA = 1e-5


def full(multiplier, steps=1):
    return SelfComposedDpEvent(GaussianDpEvent(multiplier), steps)


def sampled(multiplier, rate, steps):
    return SelfComposedDpEvent(PoissonSampledDpEvent(rate, GaussianDpEvent(multiplier)), steps)


def oracle(mu, delta):
    """Epsilon of a mu-Gaussian-DP release: Balle and Wang 2018, Theorem 8, to fifty digits.

    delta(eps) = Phi(mu/2 - eps/mu) - e^eps Phi(-mu/2 - eps/mu)
    """
    with mpmath.workdps(50):
        mu, delta = mpmath.mpf(mu), mpmath.mpf(delta)

        def spent(eps):
            return mpmath.ncdf(mu / 2 - eps / mu) - mpmath.exp(eps) * mpmath.ncdf(-mu / 2 - eps / mu)

        if spent(mpmath.mpf(0)) <= delta:
            return 0.0
        low, high = mpmath.mpf(0), mpmath.mpf(1)
        while spent(high) > delta:
            high *= 2
        for _ in range(80):
            middle = (low + high) / 2
            low, high = (middle, high) if spent(middle) > delta else (low, middle)
        return float(high)


@pytest.mark.parametrize("relation", Relation)
@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-9])
@pytest.mark.parametrize("mu", [0.01, 0.1, 0.5, 1.0, 4.0, 20.0])
def test_closed_form_against_fifty_digits(mu, delta, relation):
    event = full(relation.sensitivity * math.sqrt(9) / mu, 9)
    assert gaussian_mu(event, relation) == pytest.approx(mu, rel=1e-12)
    assert epsilon(event, delta, relation, "closed-form") == pytest.approx(oracle(mu, delta), rel=1e-7, abs=1e-9)
    assert epsilon(event, delta, relation) == epsilon(event, delta, relation, "closed-form")


def test_mu_adds_in_squares_over_any_composition():
    event = dp_accounting.ComposedDpEvent([full(2.0, 4), GaussianDpEvent(5.0), SelfComposedDpEvent(full(10.0, 3), 2)])
    mu = math.sqrt(4 / 4 + 1 / 25 + 6 / 100)
    assert gaussian_mu(event, ADD) == pytest.approx(mu, rel=1e-12)
    assert gaussian_mu(event, REPLACE) == pytest.approx(2 * mu, rel=1e-12)
    assert epsilon(event, DELTA, ADD) == pytest.approx(oracle(mu, DELTA), rel=1e-7)
    assert gaussian_mu(dp_accounting.ComposedDpEvent([full(2.0), sampled(2.0, 0.1, 1)]), ADD) is None
    assert gaussian_mu(dp_accounting.LaplaceDpEvent(1.0), ADD) is None


@pytest.mark.parametrize("relation", Relation)
@pytest.mark.parametrize("steps", [1, 100, 10_000])
def test_rdp_is_above_pld_is_above_exact(steps, relation):
    event = full(1.5 * math.sqrt(steps) * relation.sensitivity, steps)
    exact, pld, rdp = (epsilon(event, DELTA, relation, name) for name in ("closed-form", "pld", "rdp"))
    assert exact * (1 - 1e-6) <= pld <= exact * 1.002, "PLD is an upper bound, and a tight one"
    assert pld <= rdp <= 1.25 * exact


@pytest.mark.parametrize("relation", [ADD, ZERO])
def test_rdp_is_above_pld_with_sampling(relation):
    event = sampled(2.0, 0.05, 200)
    assert epsilon(event, DELTA, relation, "pld") <= epsilon(event, DELTA, relation, "rdp")


@pytest.mark.parametrize("name", ["pld", "rdp", "closed-form"])
@pytest.mark.parametrize("relation", Relation)
def test_monotone(name, relation):
    def cost(multiplier=20.0, steps=50, delta=DELTA):
        return epsilon(full(multiplier, steps), delta, relation, name)

    for values in (
        [cost(multiplier=m) for m in (5.0, 10.0, 10.1, 20.0, 80.0)],
        [cost(steps=s) for s in (200, 100, 50, 10, 1)],
        [cost(delta=d) for d in (1e-9, 1e-7, 1e-5, 1e-3)],
    ):
        assert all(a > b for a, b in pairwise(values)), values


@pytest.mark.parametrize(("name", "relation"), [("pld", ADD), ("pld", REPLACE), ("rdp", ADD), ("pld", ZERO)])
def test_monotone_in_the_sample_rate_with_sampling(name, relation):
    def cost(multiplier=2.0, rate=0.05, steps=40, delta=DELTA):
        return epsilon(sampled(multiplier, rate, steps), delta, relation, name)

    for values in (
        [cost(rate=q) for q in (1.0, 0.5, 0.05, 0.04, 0.01)],
        [cost(multiplier=m) for m in (1.0, 2.0, 2.1, 8.0)],
        [cost(steps=s) for s in (400, 40, 4)],
        [cost(delta=d) for d in (1e-8, 1e-5, 1e-3)],
    ):
        assert all(a > b for a, b in pairwise(values)), values


@pytest.mark.parametrize("name", ACCOUNTANTS)
@pytest.mark.parametrize(("multiplier", "steps"), [(2.0, 1), (3.0, 10), (50.0, 1000)])
def test_replace_one_is_add_remove_at_half_the_multiplier(name, multiplier, steps):
    replaced = epsilon(full(multiplier, steps), DELTA, REPLACE, name)
    assert replaced == pytest.approx(epsilon(full(multiplier / 2, steps), DELTA, ADD, name), rel=1e-6)
    assert replaced > epsilon(full(multiplier, steps), DELTA, ADD, name)


def test_the_trap_dp_accountings_own_rdp_does_not_double_under_replace_one():
    """dp-accounting 0.6 takes a Gaussian's multiplier as relative to the sensitivity under RDP, but doubles under PLD.

    When this fails, dp-accounting has changed: look at ``dpzo.accounting._rdp``.
    """
    theirs = dp_accounting.NeighboringRelation.REPLACE_ONE
    rdp = dp_accounting.rdp.RdpAccountant(neighboring_relation=theirs).compose(full(2.0, 1)).get_epsilon(DELTA)
    pld = dp_accounting.pld.PLDAccountant(theirs).compose(full(2.0, 1)).get_epsilon(DELTA)
    assert rdp < oracle(1.0, DELTA) < pld, "their RDP is below the truth"
    assert epsilon(full(2.0, 1), DELTA, REPLACE, "rdp") >= pld


def test_sampling_at_rate_one_is_no_sampling():
    for relation in Relation:
        assert epsilon(sampled(4.0, 1.0, 10), DELTA, relation) == pytest.approx(
            epsilon(full(4.0, 10), DELTA, relation), rel=1e-3
        )


def test_the_relation_matters_for_a_sampled_run_too():
    event = sampled(2.0, 0.05, 100)
    assert epsilon(event, DELTA, ADD) < epsilon(event, DELTA, REPLACE)
    assert epsilon(event, DELTA, REPLACE) < epsilon(sampled(0.9, 0.05, 100), DELTA, ADD)


def test_rdp_refuses_what_it_does_not_cover():
    with pytest.raises(Refusal):
        epsilon(sampled(2.0, 0.05, 100), DELTA, REPLACE, "rdp")
    with pytest.raises(Refusal):
        epsilon(sampled(2.0, 0.05, 100), DELTA, ADD, "closed-form")
    with pytest.raises(Refusal):
        epsilon(full(2.0), DELTA, ADD, "moments")


@pytest.mark.parametrize(
    "event",
    [
        dp_accounting.NonPrivateDpEvent(),
        SelfComposedDpEvent(dp_accounting.NonPrivateDpEvent(), 3),
        PoissonSampledDpEvent(0.1, dp_accounting.NonPrivateDpEvent()),
        dp_accounting.ComposedDpEvent([full(2.0), dp_accounting.NonPrivateDpEvent()]),
    ],
    ids=str,
)
def test_no_noise_no_privacy(event):
    assert epsilon(event, DELTA, ADD) == math.inf


# --- calibration -----------------------------------------------------------------------------------------------------

RUNS = [
    (1.0, 1, 0.01, ADD, None),
    (1.0, 10_000, 2.0, REPLACE, None),
    (1.0, 10_000, 100.0, ADD, None),
    (1.0, 10, 2.0, ADD, "rdp"),
    (0.0625, 10_000, 2.0, ADD, "rdp"),
    (0.0625, 10_000, 2.0, ADD, None),
    (0.0625, 10_000, 6.0, REPLACE, None),
    (0.008, 20_000, 2.0, ADD, None),
    (0.01, 500, 0.5, ADD, None),
    (0.1, 10, 8.0, ZERO, None),
    (0.01, 200, 4.0, REPLACE, None),
]


@pytest.mark.parametrize(("rate", "steps", "target", "relation", "name"), RUNS)
def test_calibration_is_below_the_target_within_a_thousandth_and_quick(rate, steps, target, relation, name):
    def event(multiplier):
        return full(multiplier, steps) if rate == 1 else sampled(multiplier, rate, steps)

    dpzo.accounting._epsilon.cache_clear()
    start = time.process_time()
    multiplier = calibrate(event, target, DELTA, relation, name)
    seconds = time.process_time() - start
    spent = epsilon(event(multiplier), DELTA, relation, name)
    assert target * 0.999 <= spent <= target
    assert seconds < 10


@given(
    target=st.floats(0.05, 50),
    delta=st.floats(1e-12, 1e-3),
    steps=st.integers(1, 10**6),
    relation=st.sampled_from(list(Relation)),
)
def test_calibration_of_any_full_batch_run(target, delta, steps, relation):
    multiplier = calibrate(lambda m: full(m, steps), target, delta, relation)
    assert target * 0.999 <= epsilon(full(multiplier, steps), delta, relation) <= target


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan, True, "2", None])
def test_bad_targets_are_refused(bad):
    with pytest.raises(Refusal):
        calibrate(full, bad, DELTA, ADD)
    with pytest.raises(Refusal):
        paper_noise_multiplier(bad, DELTA, 10)


@pytest.mark.parametrize("bad", [0.0, -1e-5, 1.0, 1, 2.0, math.inf, math.nan, None, "1e-5"])
def test_bad_deltas_are_refused(bad):
    with pytest.raises(Refusal):
        epsilon(full(1.0), bad, ADD)
    with pytest.raises(Refusal):
        calibrate(full, 2.0, bad, ADD)
    with pytest.raises(Refusal):
        paper_noise_multiplier(2.0, bad, 10)


# --- the papers' numbers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("target", "paper", "exact"), [(2.0, 0.9650, 0.3894), (6.0, 0.3358, 0.1491)])
def test_standard_deviation_over_c_on_the_mean_of_1024(target, paper, exact):
    assert round(paper_noise_multiplier(target, DELTA, 10_000) / 1024, 4) == paper
    assert calibrate(lambda m: full(m, 10_000), target, DELTA, REPLACE) / 1024 == pytest.approx(exact, abs=6e-5)


@pytest.mark.parametrize(
    ("target", "delivered"),
    [(1.0, 0.356), (2.0, 0.735), (6.0, 2.361), (10.0, 4.13), (50.0, 28.6), (100.0, 75.5), (200.0, 221.0), (300.0, 435)],
)
def test_what_lemma_2_2_delivers(target, delivered):
    """It wants twice the noise at small epsilon, and above 100 it breaks its promise, though stated for any."""
    event = full(paper_noise_multiplier(target, DELTA, 10_000), 10_000)
    assert epsilon(event, DELTA, REPLACE) == pytest.approx(delivered, rel=2e-3)
    assert (epsilon(event, DELTA, REPLACE) > target) == (target >= 200)


# Multipliers that Opacus 1.4's default (RDP) accountant gave the paper's code for epsilon 2 and 6.
OPACUS = [
    (64 / 1024, 10_000, 13.5156, 5.1562),
    (64 / 2560, 10_000, 5.4492, 2.1680),
    (64 / 1536, 10_000, 9.0234, 3.4814),
    (64 / 3072, 10_000, 4.5703, 1.8481),
    (64 / 2646, 10_000, 5.2734, 2.1045),
    (8 / 1000, 20_000, 2.5488, 1.1462),
]


@pytest.mark.parametrize(("rate", "steps", "for_2", "for_6"), OPACUS)
def test_rdp_at_the_papers_multipliers(rate, steps, for_2, for_6):
    assert 1.98 <= epsilon(sampled(for_2, rate, steps), DELTA, ADD, "rdp") <= 2.001
    # Our orders are coarser than Opacus' between 2 and 10, which costs up to one in a hundred here.
    assert 5.98 <= epsilon(sampled(for_6, rate, steps), DELTA, ADD, "rdp") <= 6.06


@pytest.mark.parametrize(("rate", "steps", "multiplier"), [(q, t, m) for q, t, *ms in OPACUS[::5] for m in ms])
def test_against_opacus(rate, steps, multiplier):
    opacus = pytest.importorskip("opacus.accountants")
    theirs = opacus.RDPAccountant()
    theirs.history = [(multiplier, rate, steps)]
    rdp = theirs.get_epsilon(DELTA)
    assert epsilon(sampled(multiplier, rate, steps), DELTA, ADD, "rdp") == pytest.approx(rdp, rel=1e-2)
    assert epsilon(sampled(multiplier, rate, steps), DELTA, ADD, "pld") <= rdp


def test_trec_true_size_was_underestimated():
    """The public code's rate assumes 3072 records where TREC has 2646: about 2.35 instead of 2 even under Poisson."""
    assert epsilon(sampled(4.5703, 64 / 2646, 10_000), DELTA, ADD, "rdp") == pytest.approx(2.35, abs=0.01)
