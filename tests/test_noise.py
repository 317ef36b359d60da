"""The rounded noises: each word of the source leads to the integer that exact arithmetic says it leads to.

Given that, the law is a count of words, which is made here in full for short words; chance comes last.
"""

import math
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import mpmath
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from dpzo import noise
from dpzo.noise import rounded_gaussian, rounded_laplace, total_variation
from dpzo.randomness import OsEntropy, SeededEntropy
from tests.chance import ALPHA, binomial_p, ks_p, scale_p


class Law(NamedTuple):
    draw: object
    tail: object  # P(Z > x) for scale 1, by mpmath
    quick: object
    exact: object
    cdf: object


LAWS = {
    "gaussian": Law(
        rounded_gaussian,
        lambda x: mpmath.erfc(x / mpmath.sqrt(2)) / 2,
        noise._gaussian,
        noise._exact_gaussian,
        stats.norm.cdf,
    ),
    "laplace": Law(
        rounded_laplace, lambda x: mpmath.exp(-x) / 2, noise._laplace, noise._exact_laplace, stats.laplace.cdf
    ),
}
BOTH = pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
SMALL = pytest.mark.parametrize("scale", [0.3, 1.0, 3.7])
SCALES = [0.01, 0.3, 1.0, 3.7, 1e3, 2.0**24, 10 * 2.0**24, 2.0**56]
LAST = 2**128 - 1


class Words:
    """A source whose 128-bit words are chosen."""

    secret = False

    def __init__(self, *words):
        self.words = list(words)

    def bits(self, count):
        assert count == noise._BITS
        return self.words.pop(0)


def drawn(law, scale, word):
    (k,) = law.draw(scale, 1, Words(word))
    return int(k)


def is_right(law, scale, word, k):
    """Whether the word's point of (0, 1/2) lies between the tails beyond |k| + 1/2 and |k| - 1/2, and k has its sign.

    It asks for no quantile, so it shares nothing with the code but the meaning of a word.
    """
    with mpmath.workdps(90):
        point, size = mpmath.ldexp(2 * (word // 2) + 1, -129), abs(k)
        inside = law.tail((size + mpmath.mpf(0.5)) / scale) < point
        outside = size == 0 or point <= law.tail((size - mpmath.mpf(0.5)) / scale)
    return inside and outside and (k == 0 or (k > 0) == (word % 2 == 0))


def at_the_edges(law, scale):
    """Words whose point is as near as any to where one integer ends and the next begins."""
    words = set()
    for k in {0, 1, 2, round(0.1 * scale), round(scale), round(3.3 * scale), round(8 * scale)}:
        with mpmath.workdps(90):
            edge = int(mpmath.floor(mpmath.ldexp(law.tail((k + mpmath.mpf(0.5)) / scale), 129)))
        words |= {word for word in range(edge - 3, edge + 4) if 0 <= word <= LAST}
    return words


@BOTH
@given(scale=st.sampled_from(SCALES) | st.floats(2.0**-4, 2.0**56), word=st.integers(0, LAST))
@example(scale=2.0**24, word=0)
def test_a_word_leads_to_its_integer(law, scale, word):
    assert is_right(law, scale, word, drawn(law, scale, word))


@BOTH
@pytest.mark.parametrize("scale", SCALES)
def test_extreme_words_lead_to_their_integers(law, scale):
    """Kills: a point that may be 0 (infinite noise); a total_variation of fewer integers than can be reached."""
    for word in (0, 1, 2, 3, 2**127 - 1, 2**127, LAST - 3, LAST - 2, LAST - 1, LAST):
        k = drawn(law, scale, word)
        assert is_right(law, scale, word, k)
        # Half of 2**-128 for each integer from -|k| to |k|, and as much for the two tails beyond together.
        assert abs(k) + 1 <= total_variation(scale) * 2**128


@BOTH
@pytest.mark.parametrize("scale", SCALES[1:])
def test_words_at_the_edges_lead_to_their_integers(law, scale, monkeypatch):
    """Kills: double precision alone, which cannot tell on which side such a word lies (run below)."""

    def wrong():
        return [word for word in words if not is_right(law, scale, word, drawn(law, scale, word))]

    words = at_the_edges(law, scale)
    assert len(words) > 6
    assert not wrong()
    monkeypatch.setattr(noise, "_UNSURE", -1.0)
    assert wrong()
    if scale > 1e6:
        monkeypatch.setattr(noise, "_UNSURE", 0.0)
        assert wrong(), "not even where double precision seems to be sure"


POINTS = [2.0**-e for e in np.linspace(1, 129, 300)[1:]] + [0.5 - 2.0**-e for e in np.linspace(2, 54, 100)] + [0.5]


@BOTH
def test_the_filters_margin_is_a_thousand_times_the_error_of_double_precision(law):
    worst = 0.0
    with mpmath.workdps(90):
        for point in POINTS:
            q = law.quick(point)
            worst = max(worst, abs(q - law.exact(mpmath.mpf(point))) / (1 + q))
    assert 0 < worst < noise._UNSURE / 1000


@BOTH
def test_the_exact_quantile_has_sixty_digits(law):
    with mpmath.workdps(120):
        for point in [mpmath.ldexp(2 * j + 1, -129) for j in (0, 1, 2**40 + 1, 2**126 + 12345, 2**127 - 1)]:
            q = mpmath.mpf(law.exact(point))
            slope = mpmath.diff(law.tail, q)
            assert abs((law.tail(q) - point) / slope) < mpmath.mpf(10) ** -60 * (1 + q)


@BOTH
@given(word=st.integers(0, LAST), scale=st.sampled_from(SCALES))
def test_a_words_last_bit_is_the_sign(law, word, scale):
    assert drawn(law, scale, word) == -drawn(law, scale, word ^ 1)


@BOTH
def test_each_draw_has_a_word_of_its_own(law):
    words = [2**100 + 1, 2**120, 5 * 2**125, 3]
    together = law.draw(1e6, 4, Words(*words))
    assert together.dtype == np.int64
    assert together.tolist() == [drawn(law, 1e6, word) for word in words]
    assert len(set(together.tolist())) == 4
    assert law.draw(1e6, 0, Words()).shape == (0,)


@BOTH
def test_no_other_thread_reaches_the_precision_of_a_draw(law):
    """Kills: mpmath's one context for all, whose precision any thread may set, and each draw of another thread does."""

    def drawn(seed):
        return law.draw(2.0**55, 100, SeededEntropy(seed)).tolist()

    def meddling():
        while not done.is_set():
            mpmath.mp.dps = 5
            with mpmath.workdps(15):
                mpmath.erfinv(0.3)

    alone, done = [drawn(seed) for seed in range(4)], threading.Event()
    before, interval, meddler = mpmath.mp.dps, sys.getswitchinterval(), threading.Thread(target=meddling)
    try:
        sys.setswitchinterval(1e-5)  # threads take turns within a draw, not once in several
        meddler.start()
        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(drawn, range(4))) == alone
    finally:
        done.set()
        meddler.join()
        sys.setswitchinterval(interval)
        mpmath.mp.dps = before


@BOTH
def test_the_callers_precision_stays_and_does_not_count(law):
    words = [2**100 + 1, 2**120, 5 * 2**125, 3]
    expected = law.draw(2.0**55, 4, Words(*words)).tolist()
    with mpmath.workdps(6):
        assert law.draw(2.0**55, 4, Words(*words)).tolist() == expected
        assert mpmath.mp.dps == 6


def masses(law, scale, reach):
    """P(round(scale Z) = k) for |k| <= reach, and the mass of all others."""
    ends = (np.arange(-reach, reach + 2) - 0.5) / scale
    inside = np.diff(law.cdf(ends))
    return dict(zip(range(-reach, reach + 1), inside.tolist(), strict=True)), 2 * float(law.cdf(ends[0]))


def short_words(law, scale, bits, monkeypatch):
    """How many of all words of so many bits lead to each integer."""
    monkeypatch.setattr(noise, "_BITS", bits)
    return Counter(law.draw(scale, 2**bits, Words(*range(2**bits))).tolist())


@BOTH
@SMALL
@pytest.mark.parametrize("bits", [8, 13])
def test_an_integer_has_its_share_of_all_words_to_within_one(law, scale, bits, monkeypatch):
    """The whole claim, counted on shorter words, and total_variation with it."""
    counts = short_words(law, scale, bits, monkeypatch)
    exact, beyond = masses(law, scale, math.ceil(90 * scale))
    assert sum(counts.values()) == 2**bits
    assert all(abs(counts[k] - mass * 2**bits) <= 1 for k, mass in exact.items())
    distance = (sum(abs(counts[k] / 2**bits - mass) for k, mass in exact.items()) + beyond) / 2
    assert distance <= total_variation(scale)


@BOTH
def test_the_count_of_words_sees_another_law(law, monkeypatch):
    """Kills: a scale one percent low; the other law at the same scale; rounding toward 0 instead of to nearest."""
    counts = short_words(law, 3.7, 13, monkeypatch)

    def fits(mutant, scale):
        exact, _ = masses(mutant, scale, 400)
        return all(abs(counts[k] - mass * 2**13) <= 1 for k, mass in exact.items())

    (other,) = (m for m in LAWS.values() if m is not law)
    assert fits(law, 3.7)
    assert not fits(law, 0.99 * 3.7)
    assert not fits(other, 3.7)
    toward_zero = law.cdf(1 / 3.7) - law.cdf(-1 / 3.7)
    assert abs(counts[0] - toward_zero * 2**13) > 1


def test_the_distance_is_negligible_at_the_scales_of_use():
    assert total_variation(2.0**24) < 2.0**-96
    assert total_variation(2.0**56) < 1e-18  # the largest scale that a mechanism asks for
    assert total_variation(2e7) == pytest.approx(2 * total_variation(1e7))


@pytest.mark.statistical
@BOTH
@SMALL
def test_the_law_on_the_integers(law, scale):
    """Each integer's mass and each tail's, exactly binomial. Kills: scale * 0.9 (run below); the sign's bit reused."""
    draws, reach = 40_000, math.ceil(3 * scale)
    sample = law.draw(scale, draws, OsEntropy())

    def fits(scale):
        ps = []
        for k in range(-reach, reach + 1):
            below, upto = law.cdf((k - 0.5) / scale), law.cdf((k + 0.5) / scale)
            ps.append(binomial_p((sample == k).sum(), draws, upto - below))
            ps.append(binomial_p((sample <= k).sum(), draws, upto))
        return min(ps) > ALPHA / len(ps)

    assert fits(scale)
    assert not fits(0.9 * scale)


@pytest.mark.statistical
@pytest.mark.parametrize("scale", [2.0**24, 10 * 2.0**24])
def test_the_law_at_the_scales_of_use(scale):
    """Kills: scale * 0.9 (run below); the Gaussian and the Laplace exchanged."""
    gaussian = rounded_gaussian(scale, 20_000, OsEntropy())
    laplace = rounded_laplace(scale, 9000, OsEntropy())
    assert scale_p(gaussian, scale) > ALPHA > scale_p(0.9 * gaussian, scale)
    assert ks_p(gaussian[:9000] / scale, "norm") > ALPHA > ks_p(laplace / scale, "norm")
    assert ks_p(laplace / scale, "laplace") > ALPHA > ks_p(gaussian[:9000] / scale, "laplace")
    # |Z| / scale of a Laplace is exponential, so its sum has a gamma law.
    size = np.abs(laplace).sum() / scale
    assert 2 * min(stats.gamma(9000).cdf(size), stats.gamma(9000).sf(size)) > ALPHA
    assert stats.gamma(9000).cdf(0.9 * size) < ALPHA
