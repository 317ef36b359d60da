import random

import numpy as np
import pytest
import torch

from dpzo import Refusal, Streams, dpgd_zeroth, dpzero, run
from dpzo.accounting import Relation
from dpzo.models.quadratic import Quadratic
from dpzo.randomness import OsEntropy, SeededEntropy
from tests.chance import ALPHA, correlation_p, ks_p, scale_p

SOURCES = pytest.mark.parametrize("source", [OsEntropy(), SeededEntropy(1)], ids=["os", "seeded"])
DATA = torch.linspace(-1, 1, 40).view(8, 5)


def global_seeds(seed):
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def global_states():
    legacy = np.random.get_state()
    return torch.get_rng_state().tolist(), legacy[1].tolist(), legacy[2:], random.getstate()


def plan(algorithm=dpzero):
    return algorithm(
        n=8,
        steps=20,
        step_size=0.1,
        zo_eps=0.1,
        clip_threshold=1.0,
        batch_size=4,
        noise_multiplier=1.0,
        relation=Relation.ADD_REMOVE,
    )


def train(algorithm=dpzero, streams=None):
    model = Quadratic(torch.ones(5), torch.ones(5))
    steps = list(run(plan(algorithm), model, DATA, streams or Streams.secure(3)))
    return model.params["x"].clone(), steps


def test_global_seeds_do_not_reach_the_operating_systems_entropy():
    global_seeds(0)
    first = OsEntropy().normal(8), OsEntropy().uniform(8)
    global_seeds(0)
    second = OsEntropy().normal(8), OsEntropy().uniform(8)
    assert not set(first[0]) & set(second[0])
    assert not set(first[1]) & set(second[1])


@pytest.mark.parametrize("algorithm", [dpzero, dpgd_zeroth])
def test_two_runs_under_the_same_global_seeds_differ(algorithm):
    global_seeds(0)
    first, _ = train(algorithm)
    global_seeds(0)
    second, _ = train(algorithm)
    assert not torch.isclose(first, second, rtol=1e-6).any()


@pytest.mark.parametrize("algorithm", [dpzero, dpgd_zeroth])
def test_a_run_leaves_the_global_generators_alone(algorithm):
    global_seeds(0)
    before = global_states()
    train(algorithm)
    assert global_states() == before


class NoiseFromTheDirectionsSeed:
    """The defect of the public code bases: after seeding for u, the noise is the generator's next number."""

    secret = True

    def __init__(self, streams):
        self.seeds = iter([streams.direction_seed(i) for i in range(100)])

    def uniform(self, size):
        return OsEntropy().uniform(size)

    def normal(self, size):
        return np.random.default_rng(next(self.seeds)).standard_normal(size)


def noise_repeats(make_streams):
    """Whether two runs with the same public directions on an empty batch release the same noise."""
    scalars = []
    for _ in range(2):
        model = Quadratic(torch.ones(5), DATA.mean(0))
        full = dpzero(
            n=1,
            steps=5,
            step_size=0.1,
            zo_eps=0.1,
            clip_threshold=1e-9,
            noise_multiplier=1e9,
            relation=Relation.ADD_REMOVE,
        )
        steps = list(run(full, model, DATA[:1], make_streams()))
        scalars.append([round(step.scalars[0], 6) for step in steps])
        seeds = [step.seed for step in steps]
        assert seeds == [Streams.secure(3).direction_seed(i) for i in range(5)]
    return any(a == b for a, b in zip(*scalars, strict=True))


def test_the_same_directions_do_not_bring_the_same_noise():
    """Kills: noise as a function of the direction's seed."""
    assert not noise_repeats(lambda: Streams.secure(3))

    def mutant():
        streams = Streams.secure(3)
        return Streams(3, OsEntropy(), NoiseFromTheDirectionsSeed(streams))

    assert noise_repeats(mutant)


@SOURCES
def test_one_source_never_repeats_itself(source):
    assert not set(source.normal(1000)) & set(source.normal(1000))
    assert not set(source.uniform(1000)) & set(source.uniform(1000))


def test_seeded_entropy_repeats_and_says_so():
    assert np.array_equal(SeededEntropy(4).normal(9), SeededEntropy(4).normal(9))
    assert np.array_equal(SeededEntropy(4).uniform(9), SeededEntropy(4).uniform(9))
    assert not np.array_equal(SeededEntropy(4).normal(9), SeededEntropy(5).normal(9))
    assert not SeededEntropy(4).secret
    assert OsEntropy().secret


def test_streams_say_whether_they_are_private():
    assert Streams.secure(0).are_private
    assert not Streams.not_private(0, 0).are_private
    assert not Streams(0, OsEntropy(), SeededEntropy(0)).are_private
    assert not Streams(0, SeededEntropy(0), OsEntropy()).are_private


def test_the_seeded_streams_differ_from_one_another():
    streams = Streams.not_private(1, 1)
    assert not set(streams.private.uniform(100)) & set(streams.noise.uniform(100))
    assert not np.array_equal(Streams.not_private(1, 1).noise.normal(9), Streams.not_private(1, 2).noise.normal(9))
    assert np.array_equal(Streams.not_private(1, 1).noise.normal(9), Streams.not_private(2, 1).noise.normal(9))


def test_direction_seeds_are_distinct_and_depend_on_the_public_seed_alone():
    seeds = [Streams.secure(seed).direction_seed(index) for seed in (0, 1, 2**64 - 1) for index in range(-1, 1000)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**64 for seed in seeds)
    assert Streams.secure(7).direction_seed(5) == Streams.not_private(7, 9).direction_seed(5)
    # Fixed for ever, or old transcripts could not be replayed.
    assert Streams.secure(0).direction_seed(0) == 15337289464306141246


def test_one_source_for_two_streams_is_refused():
    source = OsEntropy()
    with pytest.raises(Refusal):
        Streams(0, source, source)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range_is_refused(seed):
    with pytest.raises(Refusal):
        Streams.secure(seed)


def test_uniform_is_strictly_inside(monkeypatch):
    for word in (0, 2**64 - 1):
        monkeypatch.setattr("os.urandom", lambda size, word=word: word.to_bytes(8, "little") * (size // 8))
        value = OsEntropy().uniform(1)[0]
        assert 0 < value < 1
        assert np.isfinite(OsEntropy().normal(1)).all()
        assert abs(OsEntropy().normal(1)[0]) > 8


@pytest.mark.parametrize("size", [0, 1, 7])
@SOURCES
def test_sizes(source, size):
    for draw in (source.uniform(size), source.normal(size)):
        assert draw.shape == (size,)
        assert draw.dtype == np.float64


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
