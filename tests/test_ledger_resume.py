"""A run that stopped or was killed goes on from its ledger, as if it had not but for the steps it lost."""

from dataclasses import replace
from itertools import islice

import pytest
import torch

from dpzo import Ledger, Refusal, Streams, digest, replay, run
from dpzo.ledger import read
from dpzo.randomness import SeededEntropy
from tests.ledgers import DATA, DPGD, PLAN, REPLAYED, Counted, Killed, T, killed_at, streams, weights

EVERY = pytest.mark.parametrize("plan", REPLAYED.values(), ids=REPLAYED)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.ledger"


@EVERY
@pytest.mark.parametrize("stops", [[0], [1], [2], [T - 1], [T], [2, 3, 7], [5, 0, 5]], ids=str)
def test_a_run_that_stopped_goes_on_bit_for_bit(path, plan, stops):
    """Kills: batches, noise or directions that depend on what this process drew before; a stage begun again."""
    whole, resumed = Counted(), Counted()
    expected = list(run(plan, whole, DATA, streams()))
    for taken in stops:
        with Ledger(path) as ledger:
            assert list(islice(run(plan, Counted(), DATA, streams(), ledger=ledger), taken)) == expected[:taken]
    with Ledger(path) as ledger:
        assert ledger.charged == 0
        steps = list(run(plan, resumed, DATA, streams(), ledger=ledger))
        assert ledger.charged == T
    assert digest(steps) == digest(expected)
    assert torch.equal(weights(resumed), weights(whole))
    assert read(path).steps == expected


@EVERY
def test_one_ledger_object_serves_a_stopped_run_too(path, plan):
    whole, resumed = Counted(), Counted()
    expected = list(run(plan, whole, DATA, streams()))
    with Ledger(path) as ledger:
        list(islice(run(plan, Counted(), DATA, streams(), ledger=ledger), 3))
        assert list(run(plan, resumed, DATA, streams(), ledger=ledger)) == expected
    assert torch.equal(weights(resumed), weights(whole))


@pytest.mark.parametrize("passes", range(2 * T))
def test_a_step_lost_between_charge_and_release_is_skipped_and_paid(path, passes):
    lost = passes // 2
    killed_at(path, passes)
    assert read(path).charged == lost + 1
    resumed = Counted()
    with Ledger(path) as ledger:
        steps = list(run(PLAN, resumed, DATA, streams(), ledger=ledger))
    assert [step.index for step in steps] == [i for i in range(T) if i != lost]
    assert [step.seed for step in steps] == [streams().direction_seed(step.index) for step in steps]
    assert [step.stage for step in steps] == [PLAN.stage_of(step.index) for step in steps]
    assert read(path).charged == T
    base = Counted()
    replay(PLAN, base.params, read(path).steps)
    assert torch.equal(weights(base), weights(resumed))


class Watched(SeededEntropy):
    """Notes which step's numbers were asked for."""

    def __init__(self, seed, asked):
        super().__init__(seed)
        self.asked = asked

    def at(self, step):
        self.asked.append(step)
        return super().at(step)


def test_no_steps_noise_or_batch_is_drawn_twice_however_often_a_run_is_killed(path):
    """Kills: a lost step tried again; one index for all attempts."""
    noise, batches = [], []

    def watched():
        return Streams(1, Watched(7, batches), Watched(8, noise))

    for passes in (0, 3, 2, 5):
        killed_at(path, passes, watched)
    with Ledger(path) as ledger:
        steps = list(run(PLAN, Counted(), DATA, watched(), ledger=ledger))
    assert noise == sorted(set(noise))
    assert batches == sorted(set(batches)) == list(range(T))
    assert len({step.scalars for step in steps}) == len(steps) == T - 4
    assert read(path).charged == T


@EVERY
def test_a_run_goes_on_from_a_checkpoint_or_from_its_start(path, plan):
    whole, first = Counted(), Counted()
    expected = list(run(plan, whole, DATA, streams()))
    with Ledger(path) as ledger:
        for step in islice(run(plan, first, DATA, streams(), ledger=ledger), 7):
            if step.index == 4:
                ledger.checkpoint(first.params, step)
                saved = first.params.snapshot()
    later = Counted()
    later.params.restore(saved)
    with Ledger(path) as ledger:
        steps = list(islice(run(plan, later, DATA, streams(), ledger=ledger), 4))
    assert steps == expected[5:]
    early = Counted()
    with Ledger(path) as ledger:
        assert list(run(plan, early, DATA, streams(), ledger=ledger)) == expected
    assert torch.equal(weights(early), weights(whole))


def test_a_checkpoint_while_a_run_replays_knows_how_far_the_weights_are(path):
    """Kills: weights from the middle of a replay noted as the newest ones."""
    with Ledger(path) as ledger:
        expected = list(run(PLAN, Counted(), DATA, streams(), ledger=ledger))
    m = Counted()
    with Ledger(path) as ledger:
        steps = run(PLAN, m, DATA, streams(), ledger=ledger)
        ledger.checkpoint(m.params, [next(steps) for _ in range(3)][-1])
        assert list(run(PLAN, m, DATA, streams(), ledger=ledger)) == expected[3:]


def test_dpgd_goes_on_from_its_checkpoint_bit_for_bit(path):
    whole, first, later = Counted(), Counted(), Counted()
    expected = list(run(DPGD, whole, DATA, streams()))
    with Ledger(path) as ledger:
        steps = list(islice(run(DPGD, first, DATA, streams(), ledger=ledger), 5))
        ledger.checkpoint(first.params, steps[-1])
    later.params.restore(first.params.snapshot())
    with Ledger(path) as ledger:
        steps += run(DPGD, later, DATA, streams(), ledger=ledger)
    assert digest(steps) == digest(expected)
    assert torch.equal(weights(later), weights(whole))


def test_dpgds_steps_since_its_checkpoint_are_lost_and_paid(path):
    """Kills: a run that no weights can ever continue; a vector step taken again under the same noise."""
    first, later = Counted(), Counted()
    with Ledger(path) as ledger:
        for step in islice(run(DPGD, first, DATA, streams(), ledger=ledger), 7):
            if step.index == 4:
                ledger.checkpoint(first.params, step)
                later.params.restore(first.params.snapshot())
    with Ledger(path) as ledger:
        steps = list(run(DPGD, later, DATA, streams(), ledger=ledger))
    assert [step.index for step in steps] == list(range(7, T))
    assert read(path).charged == T


def test_weights_from_the_middle_of_a_step_are_no_checkpoint(path):
    m = Counted(5)
    with Ledger(path) as ledger:
        steps = run(PLAN, m, DATA, streams(), ledger=ledger)
        taken = [next(steps), next(steps)]
        with pytest.raises(Killed):
            next(steps)
        before = path.read_bytes()
        with pytest.raises(Refusal, match="whole step"):
            ledger.checkpoint(m.params, taken[-1])
        with pytest.raises(Refusal, match="whole step"):
            ledger.checkpoint(m.params, replace(taken[-1], index=3))
        assert path.read_bytes() == before


def test_a_killed_run_that_is_taken_up_with_the_same_ledger_object_can_note_checkpoints_again(path):
    first, second, third = Counted(5), Counted(), Counted()
    with Ledger(path) as ledger:
        with pytest.raises(Killed):
            list(run(PLAN, first, DATA, streams(), ledger=ledger))
        ledger.checkpoint(second.params, next(run(PLAN, second, DATA, streams(), ledger=ledger)))
        third.params.restore(second.params.snapshot())
        assert [step.index for step in run(PLAN, third, DATA, streams(), ledger=ledger)] == [1, *range(3, T)]


def test_a_finished_run_is_replayed_and_spends_no_more(path):
    with Ledger(path) as ledger:
        expected = list(run(PLAN, Counted(), DATA, Streams.secure(1), ledger=ledger))
    before = path.read_bytes()
    with Ledger(path) as ledger:
        assert list(run(PLAN, Counted(), DATA, Streams.secure(1), ledger=ledger)) == expected
    assert path.read_bytes() == before
