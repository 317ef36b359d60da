import os
import pickle
import random

import numpy as np
import pytest
import torch

from dpzo import Refusal, Relation, Streams, dp_aggzo, dpgd_zeroth, dpzero, mezo, run
from dpzo.models.quadratic import Quadratic
from dpzo.randomness import OsEntropy, SeededEntropy
from tests.ledgers import in_a_fork

DATA = torch.linspace(-1, 1, 40).view(8, 5)


def global_seeds(seed):
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def global_states():
    legacy = np.random.get_state()
    return torch.get_rng_state().tolist(), legacy[1].tolist(), legacy[2:], random.getstate()


COMMON = {"n": 8, "steps": 20, "step_size": 0.1, "zo_eps": 0.1, "batch_size": 4}
PRIVATE = {"clip_threshold": 1.0, "noise_multiplier": 1.0, "relation": Relation.ADD_REMOVE}


def plan(algorithm=dpzero):
    if algorithm is mezo:
        return mezo(**COMMON)
    return algorithm(**COMMON, **PRIVATE, **({"directions": 3} if algorithm is dp_aggzo else {}))


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


@pytest.mark.parametrize("algorithm", [dpzero, dpgd_zeroth, dp_aggzo, mezo])
def test_two_runs_under_the_same_global_seeds_differ(algorithm):
    global_seeds(0)
    first, _ = train(algorithm)
    global_seeds(0)
    second, _ = train(algorithm)
    assert not torch.isclose(first, second, rtol=1e-6).any()


@pytest.mark.parametrize("algorithm", [dpzero, dpgd_zeroth, dp_aggzo, mezo])
def test_a_run_with_seeded_streams_does_not_see_the_global_seeds(algorithm):
    runs = []
    for seed in (0, 1):
        global_seeds(seed)
        runs.append(train(algorithm, Streams.not_private(3, 4)))
    assert torch.equal(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]


@pytest.mark.parametrize("algorithm", [dpzero, dpgd_zeroth, dp_aggzo, mezo])
def test_a_run_leaves_the_global_generators_alone(algorithm):
    global_seeds(0)
    before = global_states()
    train(algorithm)
    assert global_states() == before


class NoiseFromTheDirectionsSeed:
    """The defect of the public code bases: after seeding for u, the noise is the generator's next number."""

    secret = True

    def __init__(self, streams):
        self.streams = streams

    def at(self, step):
        return SeededEntropy(self.streams.direction_seed(step))


def noise_repeats(make_streams):
    """Whether two runs with the same public directions release the same at a step where noise is nearly all."""
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
    assert Streams.secure(7).direction_seed(5) == 15827943956805601829


def test_one_source_for_two_streams_is_refused():
    source = OsEntropy()
    with pytest.raises(Refusal):
        Streams(0, source, source)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range_is_refused(seed):
    with pytest.raises(Refusal):
        Streams.secure(seed)


FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


class Own(OsEntropy):
    """A subclass that begins in its own way."""

    def __init__(self):
        self.mine = 1


@FORKS
@pytest.mark.parametrize("algorithm", [dpzero, dpgd_zeroth, dp_aggzo])
@pytest.mark.parametrize("taken", [0, 1, 7])
def test_a_fork_within_a_run_that_has_no_ledger_takes_no_step(algorithm, taken):
    """Kills: one step released twice under two noises, which says more than the epsilon that was paid for it."""
    model = Quadratic(torch.ones(5), torch.ones(5))
    looks, losses = [0], model.losses

    def looking(records):
        looks[0] += 1
        return losses(records)

    model.losses, model.made_up = looking, None  # only looks at the data count
    steps = run(plan(algorithm), model, DATA, Streams(3, Own(), Own()))
    indices = [next(steps).index for _ in range(taken)]
    before = looks[0]

    def child():
        try:
            next(steps)
        finally:
            assert looks[0] == before, "the model saw the batch"

    assert "got a fork of it. Make the streams where the run is" in in_a_fork(child)
    assert indices + [step.index for step in steps] == list(range(20)), "the parent goes on"


@FORKS
def test_streams_made_in_a_fork_serve_it_and_others_do_not_travel():
    assert in_a_fork(lambda: train()) == "done"
    streams = Streams.secure(3)
    assert "a fork of it" in in_a_fork(lambda: train(streams=streams))
    sent = pickle.dumps(OsEntropy())
    assert pickle.loads(sent).at(0).secret
    assert "a fork of it" in in_a_fork(lambda: pickle.loads(sent).at(0))
