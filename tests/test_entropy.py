"""The two sources of randomness, each on its own; what runs make of them is in test_randomness."""

import os

import numpy as np
import pytest

from dpzo.randomness import OsEntropy, SeededEntropy
from tests.chance import ALPHA, binomial_p, correlation_p, ks_p, scale_p

SOURCES = pytest.mark.parametrize("source", [OsEntropy(), SeededEntropy(1)], ids=["os", "seeded"])


@SOURCES
def test_one_source_never_repeats_itself(source):
    assert not set(source.normal(1000)) & set(source.normal(1000))
    assert not set(source.uniform(1000)) & set(source.uniform(1000))
    assert len({source.bits(128) for _ in range(1000)}) == 1000


@pytest.mark.statistical
@SOURCES
def test_every_bit_is_a_coin(source):
    """Kills: fewer bits than were asked for; a bit that is stuck or leans; a bit that follows its neighbour."""
    draws, count = 4000, 128
    words = [source.bits(count) for _ in range(draws)]
    assert 0 <= min(words) < max(words) < 2**count
    bits = np.array([[word >> place & 1 for place in range(count)] for word in words])

    def coins(bits):
        neighbours = [bits[:, 1:] ^ bits[:, :-1], bits[1:] ^ bits[:-1]]
        ps = [binomial_p(int(ones), len(each), 0.5) for each in (bits, *neighbours) for ones in each.sum(0)]
        return min(ps) > ALPHA / len(ps)

    assert coins(bits)
    assert not coins(bits | (np.arange(count) == 127) * bits[:, :1])
    assert not coins(np.where(np.arange(count) == 64, np.roll(bits, 1, axis=1), bits))


def numbers(source):
    return [source.bits(128), *source.uniform(100), *source.normal(100)]


def test_a_steps_seeded_numbers_do_not_depend_on_what_was_drawn_before():
    """Kills: a run that goes on from a ledger with other noise than it would have had."""
    fresh = numbers(SeededEntropy(4).at(7))
    used = SeededEntropy(4)
    used.normal(999)
    used.at(6).bits(128)
    assert numbers(used.at(7)) == fresh
    assert numbers(used.at(3).at(7)) == fresh
    assert numbers(SeededEntropy(5).at(7)) != fresh


def test_no_two_steps_share_seeded_numbers():
    """Kills: one step's numbers shifted by a few to make the next one's; step 0 that repeats the base stream."""
    base, steps = SeededEntropy(4), [*range(40), 2**40, 2**62]
    words = [word for source in (base, *map(base.at, steps)) for word in source.uniform(2000)]
    assert len(set(words)) == len(words)


def test_the_operating_systems_entropy_never_gives_a_step_again():
    first, second = (OsEntropy().at(7) for _ in range(2))
    assert not set(numbers(first)) & set(numbers(second))
    assert first.secret


def replayed_by_a_fork(source):
    """Whether a fork of the process draws what the process itself draws next."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writing, source.bits(128).to_bytes(16, "little"))
        os._exit(0)
    os.waitpid(child, 0)
    theirs = int.from_bytes(os.read(reading, 16), "little")
    os.close(reading)
    os.close(writing)
    return theirs == source.bits(128)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_does_not_replay_the_operating_systems_entropy():
    """Kills: a generator in the process's own memory, whatever it was seeded with (run)."""
    assert not replayed_by_a_fork(OsEntropy())
    assert replayed_by_a_fork(SeededEntropy(int.from_bytes(os.urandom(8), "little")))


def test_seeded_entropy_repeats_and_says_so():
    assert np.array_equal(SeededEntropy(4).normal(9), SeededEntropy(4).normal(9))
    assert np.array_equal(SeededEntropy(4).uniform(9), SeededEntropy(4).uniform(9))
    assert not np.array_equal(SeededEntropy(4).normal(9), SeededEntropy(5).normal(9))
    assert not SeededEntropy(4).secret
    assert OsEntropy().secret


def test_uniform_is_strictly_inside(monkeypatch):
    for word in (0, 2**64 - 1):
        monkeypatch.setattr("os.urandom", lambda size, word=word: word.to_bytes(8, "little") * (size // 8))
        value = OsEntropy().uniform(1)[0]
        assert 0 < value < 1
        assert np.isfinite(OsEntropy().normal(1)).all()
        assert abs(OsEntropy().normal(1)[0]) > 8


@pytest.mark.statistical
@SOURCES
def test_uniform_law(source):
    """Kills: 31 bits taken for 32 (values below one half alone); u^1.1."""
    sample = source.uniform(9000)
    assert ks_p(sample, "uniform") > ALPHA
    assert ks_p(sample / 2, "uniform") < ALPHA
    assert ks_p(source.uniform(100_000) ** 1.1, "uniform") < ALPHA


@pytest.mark.statistical
@SOURCES
def test_normal_law_and_scale(source):
    """Kills: sigma * 0.9; a uniform of the same variance."""
    sample = source.normal(20_000)
    assert ks_p(sample[:9000], "norm") > ALPHA
    assert scale_p(sample, 1.0) > ALPHA
    assert scale_p(0.9 * sample, 1.0) < ALPHA
    assert ks_p((source.uniform(9000) - 0.5) * np.sqrt(12), "norm") < ALPHA


@pytest.mark.statistical
@SOURCES
def test_successive_draws_are_uncorrelated(source):
    """Kills: antithetic pairs; a draw that moves the state by less than it took."""
    x = source.normal(40_000)
    assert correlation_p(x[::2], x[1::2]) > ALPHA
    assert correlation_p(x[:20_000], x[20_000:]) > ALPHA
    assert correlation_p(x[::2], 0.1 * x[::2] + x[1::2]) < ALPHA


@pytest.mark.parametrize("size", [0, 1, 7])
@SOURCES
def test_sizes(source, size):
    for draw in (source.uniform(size), source.normal(size)):
        assert draw.shape == (size,)
        assert draw.dtype == np.float64
