"""Nothing is spent on a ledger of another run, one in use, or one that cannot be written."""

import os
from dataclasses import replace

import pytest
import torch

from dpzo import Ledger, Refusal, Relation, Stage, Streams, run
from dpzo.ledger import read
from dpzo.mechanisms import GaussianMechanism
from dpzo.parameters import Parameters
from dpzo.sampling import PoissonSampler
from tests.ledgers import DATA, DPGD, PLAN, STAGES, Counted, T, contents, goes_on, in_a_fork, put, refused, streams

POSIX = pytest.mark.skipif(os.name != "posix", reason="a thing of POSIX systems")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.ledger"


PLANS = {
    "noise": replace(PLAN, mechanism=GaussianMechanism(1.0, 1.999)),
    "clip": replace(PLAN, mechanism=GaussianMechanism(1.001, 2.0)),
    "sampling": replace(PLAN, sampler=PoissonSampler(0.5)),
    "relation": replace(PLAN, relation=Relation.ZERO_OUT),
    "unit": replace(PLAN, unit="user"),
    "steps": replace(PLAN, stages=(*STAGES, Stage(1, 0.1, 0.1))),
    "one stage": replace(PLAN, stages=(Stage(T, 0.1, 0.1),)),
    "step size": replace(PLAN, stages=(*STAGES[:2], replace(STAGES[2], step_size=0.051))),
    "algorithm": DPGD,
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("end", ["header", "charge", "finished"])
def test_a_ledger_of_another_plan(path, plan, end):
    put(path, contents()[end])
    refused(path, "the plan of the run", plan, data=ByUser(DATA) if plan.unit == "user" else DATA)


class ByUser:
    """Data that is no list, tensor or dataclass itself; its records are."""

    unit = "user"

    def __init__(self, records):
        self.records = records

    def __len__(self):
        return len(self.records)

    def __getitem__(self, indices):
        return self.records[indices]


def one_bit_off(tensor):
    changed = tensor.clone()
    changed.view(torch.int32)[..., -1] ^= 1
    return changed


def with_weights(tensor):
    model = Counted()
    model.params = Parameters({"x": tensor})
    return model


@pytest.mark.parametrize("end", ["header", "charge", "finished"])
@pytest.mark.parametrize(
    ("match", "changes"),
    [
        ("the data of the run", lambda: {"data": one_bit_off(DATA)}),
        ("the data of the run", lambda: {"data": DATA.double()}),
        ("the data of the run", lambda: {"data": DATA.flip(0)}),
        ("weights that", lambda: {"m": with_weights(one_bit_off(torch.zeros(5)))}),
        ("weights that", lambda: {"m": with_weights(torch.zeros(6))}),
        ("weights that", lambda: {"m": with_weights(torch.zeros(5, dtype=torch.bfloat16))}),
        ("the public seed of the run", lambda: {"given": lambda: Streams.not_private(3, 2)}),
        ("the privacy of the streams", lambda: {"given": lambda: Streams.secure(1)}),
    ],
    ids=["one bit", "another type", "another order", "weights", "model", "precision", "public seed", "streams"],
)
def test_a_ledger_of_another_run(path, end, match, changes):
    put(path, contents()[end])
    refused(path, match, **changes())


def test_private_streams_and_seeded_ones_cannot_share_a_ledger(path):
    """Kills: a seeded run that ends as a private one."""
    with Ledger(path) as ledger:
        next(run(PLAN, Counted(), DATA, Streams.secure(1), ledger=ledger))
    refused(path, "the privacy of the streams", given=lambda: Streams.not_private(1, 2))


def test_data_under_another_name(path):
    with Ledger(path, data="a") as ledger:
        run(PLAN, Counted(), DATA, streams(), ledger=ledger)
    refused(path, "the data of the run", data=DATA, given=streams)
    with Ledger(path, data="a") as ledger:
        assert len(list(run(PLAN, Counted(), DATA, streams(), ledger=ledger))) == T


class Opaque:
    def __init__(self, rows):
        self.rows = rows

    def __rsub__(self, x):
        return x - self.rows


class Strange(ByUser):
    unit = "record"

    def __getitem__(self, indices):
        return Opaque(self.records[indices])


def test_records_that_have_no_fingerprint_need_a_name(path):
    path.touch()
    refused(path, r"Give Ledger\(data=", data=Strange(DATA))
    with Ledger(path, data="strange, version 3") as ledger:
        assert len(list(run(PLAN, Counted(), Strange(DATA), streams(), ledger=ledger))) == T


def test_the_fingerprint_is_of_the_records_whatever_holds_them(path):
    plan = replace(PLAN, unit="user")
    for _ in range(2):
        with Ledger(path) as ledger:
            next(run(plan, Counted(), ByUser(DATA.clone()), streams(), ledger=ledger))
    refused(path, "the data of the run", plan, data=ByUser(one_bit_off(DATA)))


def test_a_ledger_shorter_than_the_weights(path):
    """The weights are a checkpoint's; the ledger is one from before it."""
    later = Counted()
    later.params.restore(contents()["weights"])
    for end in ("header", "release"):
        put(path, contents()[end])
        refused(path, "older than the weights", m=later)
    put(path, contents()["checkpoint"])
    with Ledger(path) as ledger:
        assert [step.index for step in run(PLAN, later, DATA, streams(), ledger=ledger)] == list(range(3, T))


def test_a_refused_plan_or_budget_leaves_the_ledger_alone(path):
    put(path, contents()["release"])
    refused(path, "10 records", data=DATA[:9])
    before = path.read_bytes()
    with Ledger(path) as ledger, pytest.raises(Refusal):
        run(PLAN, Counted(), DATA, streams(), ledger=ledger, budget=(-1.0, 1e-5))
    assert path.read_bytes() == before


# Two at once


@POSIX
def test_two_runs_cannot_have_one_ledger(path):
    with Ledger(path) as ledger:
        steps = run(PLAN, Counted(), DATA, streams(), ledger=ledger)
        next(steps)
        before = path.read_bytes()
        with pytest.raises(Refusal, match="in use"):
            Ledger(path)
        assert "in use" in in_a_fork(lambda: Ledger(path))
        assert path.read_bytes() == before
        assert len(list(steps)) == T - 1
    goes_on(path)


@POSIX
def test_a_fork_cannot_write_its_parents_ledger(path):
    """Kills: two processes that both take step 1, and one charge for both."""
    with Ledger(path) as ledger:
        steps = run(PLAN, Counted(), DATA, streams(), ledger=ledger)
        next(steps)
        before = path.read_bytes()
        assert "a fork of it" in in_a_fork(lambda: ledger.charge(1))
        assert "a fork of it" in in_a_fork(lambda: next(steps))
        assert "a fork of it" in in_a_fork(lambda: run(PLAN, Counted(), DATA, streams(), ledger=ledger))
        assert path.read_bytes() == before
        assert [step.index for step in steps] == list(range(1, T))
    assert read(path).charged == T


def test_two_runs_with_one_ledger_object_cannot_both_take_a_step(path):
    m = Counted()
    with Ledger(path) as ledger:
        one = run(PLAN, Counted(), DATA, streams(), ledger=ledger)
        two = run(PLAN, m, DATA, streams(), ledger=ledger)
        assert [next(one).index, next(one).index] == [0, 1]
        with pytest.raises(Refusal, match="step 2, the first never charged"):
            next(two)
        assert m.calls == 0
        assert len(list(one)) == T - 2


def test_steps_are_charged_in_order_and_once(path):
    """Kills: a gap, after which the count of charged steps is wrong; a step paid once and taken twice."""
    with Ledger(path) as ledger:
        ledger.begin(PLAN, Counted().params, streams(), DATA)
        for index in (0, 1):
            for wrong in (index - 1, index + 1):
                with pytest.raises(Refusal, match="never charged"):
                    ledger.charge(wrong)
            ledger.charge(index)
    assert read(path).charged == 2


def test_a_ledger_that_is_closed_or_not_begun_charges_nothing(path):
    with Ledger(path) as ledger:
        with pytest.raises(Refusal, match="has begun"):
            ledger.charge(0)
        steps = run(PLAN, Counted(), DATA, streams(), ledger=ledger)
        first = next(steps)
    before = path.read_bytes()
    for act in (
        lambda: next(steps),
        lambda: ledger.checkpoint({}, first),
        lambda: run(PLAN, Counted(), DATA, streams(), ledger=ledger),
    ):
        with pytest.raises(Refusal, match="closed"):
            act()
    assert path.read_bytes() == before
