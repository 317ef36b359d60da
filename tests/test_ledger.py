"""A step is on disk before it touches the data; the ledger says what was paid, and nothing that is secret."""

import json
import math
import os
import re
from dataclasses import replace
from itertools import islice

import pytest

from dpzo import Ledger, Streams, run
from dpzo import ledger as ledger_room
from dpzo.account import SCHEMA
from dpzo.fingerprint import fingerprint, keyed
from dpzo.ledger import read
from dpzo.randomness import OsEntropy, SeededEntropy
from dpzo.sampling import FullBatch
from tests.ledgers import DATA, PLAN, Counted, T, key_of, killed_at, streams

FULL = replace(PLAN, sampler=FullBatch())  # accounted in closed form


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.ledger"


class Late(Ledger):
    """A mutant: what it charges comes to the disk with the release."""

    def charge(self, index):
        self.late = index

    def release(self, step):
        super().charge(self.late)
        super().release(step)


class Unsynced(Ledger):
    """A mutant: its lines stay with the operating system."""

    def _append(self, told, *, sync):
        super()._append(told, sync=False)


def charges_seen_by_the_model(path, monkeypatch, kind=Ledger):
    """(number of charges synced to the disk, number of the step) at each forward pass."""
    synced, seen = [0], []
    fsync = os.fsync

    def noted(handle):
        fsync(handle)
        if os.path.samestat(os.fstat(handle), path.stat()):
            synced[0] = path.read_bytes().count(b'"charge"')

    class Looking(Counted):
        def losses(self, records):
            seen.append((synced[0], len(seen) // 2))
            return super().losses(records)

    monkeypatch.setattr(os, "fsync", noted)
    with kind(path) as ledger:
        list(run(PLAN, Looking(), DATA, streams(), ledger=ledger))
    monkeypatch.undo()
    return seen


def test_a_step_is_synced_to_the_disk_before_the_model_sees_its_batch(path, monkeypatch):
    """Kills: charged after the step (run below), written and not synced (run below)."""
    assert charges_seen_by_the_model(path, monkeypatch) == [(step + 1, step) for step in range(T) for _ in range(2)]


@pytest.mark.parametrize("mutant", [Late, Unsynced])
def test_a_late_charge_is_seen(path, monkeypatch, mutant):
    seen = charges_seen_by_the_model(path, monkeypatch, mutant)
    assert all(synced <= step for synced, step in seen)


def test_a_new_ledger_and_its_folder_are_synced_before_anything_else(path, monkeypatch):
    """Kills: a charged file whose name a power cut takes back."""
    synced, fsync = [], os.fsync

    def noted(handle):
        synced.append(os.fstat(handle).st_ino)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    with Ledger(path) as ledger:
        assert synced == [path.parent.stat().st_ino]
        run(PLAN, Counted(), DATA, streams(), ledger=ledger)
        assert synced[1:] == [key_of(path).stat().st_ino, path.parent.stat().st_ino, path.stat().st_ino]
        assert len(path.read_bytes().splitlines()) == 1


@pytest.mark.parametrize("killed", [None, 0, 9])
def test_a_budget_counts_what_the_ledger_charged_before(path, killed):
    """Kills: a budget for each attempt; lost steps that are free."""
    secure = Streams.secure(1)
    delta, paid = 1e-5, 5
    budget = FULL.epsilon(delta, steps=paid) * (1 + 1e-9)
    if killed is not None:
        killed_at(path, killed, lambda: secure, FULL)
    for _ in range(2):
        with Ledger(path) as ledger:
            steps = list(run(FULL, Counted(), DATA, secure, ledger=ledger, budget=(budget, delta)))
        assert len(steps) == paid - (killed is not None)
        assert read(path).charged == paid
        assert read(path).epsilon(delta) <= budget
    with Ledger(path) as ledger:
        smaller = (budget / 2, delta)
        assert list(run(FULL, Counted(), DATA, secure, ledger=ledger, budget=smaller)) == steps
        assert ledger.charged == paid
        assert len(list(run(FULL, Counted(), DATA, secure, ledger=ledger))) == T - (killed is not None)


def test_a_torn_line_at_the_end_of_a_budget_lets_no_further_step_begin(path):
    """It counts as a step, so the ledger's epsilon may be one step above a budget that no step exceeded."""
    secure, model = Streams.secure(1), Counted()
    budget = FULL.epsilon(1e-5, steps=5) * (1 + 1e-9), 1e-5
    with Ledger(path) as ledger:
        list(run(FULL, Counted(), DATA, secure, ledger=ledger, budget=budget))
    path.write_bytes(path.read_bytes()[:-9])
    with Ledger(path) as ledger:
        assert [step.index for step in run(FULL, model, DATA, secure, ledger=ledger, budget=budget)] == [0, 1, 2, 3]
    assert model.calls == 0
    assert read(path).charged == 6


@pytest.mark.parametrize("taken", [0, 1, 6, T])
def test_what_is_read_is_what_a_run_begins_with(path, taken):
    secure = Streams.secure(1)
    with Ledger(path) as ledger:
        steps = list(islice(run(FULL, Counted(), DATA, secure, ledger=ledger), taken))
        assert read(path).steps == steps, "also while the run is under way"
        assert read(path).charged == taken
    account = read(path)
    assert account.plan == FULL
    assert account.epsilon(1e-5) == FULL.epsilon(1e-5, steps=taken)
    with Ledger(path) as ledger:
        known = ledger.begin(FULL, Counted().params, secure, DATA)
        assert (known, ledger.charged) == (account.steps, account.charged)


def test_the_header_says_what_the_run_is(path):
    with Ledger(path, data="sst2, first 10") as ledger:
        run(PLAN, Counted(), DATA, Streams.secure(1), ledger=ledger)
    account = read(path)
    assert account.header == {
        "ledger": SCHEMA,
        "plan": PLAN.describe(),
        "public_seed": 1,
        "private": True,
        "weights": fingerprint(Counted().params),
        "data": keyed("sst2, first 10", bytes.fromhex(key_of(path).read_text())),
    }


@pytest.mark.parametrize("batches", [OsEntropy(), SeededEntropy(1)])
@pytest.mark.parametrize("noise", [OsEntropy(), SeededEntropy(1)])
def test_a_ledger_of_seeded_streams_says_so_and_claims_no_epsilon(path, batches, noise):
    with Ledger(path) as ledger:
        next(run(PLAN, Counted(), DATA, Streams(1, batches, noise), ledger=ledger))
    private = batches.secret and noise.secret
    first = path.read_text().splitlines()[0]
    assert ("NOT PRIVATE" in first) is not private
    assert json.loads(first.partition(" ")[2])["private"] is private
    assert math.isfinite(read(path).epsilon(1e-5)) is private


def test_a_ledger_holds_no_loss_no_batch_and_no_noise(path):
    """Kills: a debugging line. Every line has these keys and no others, and a release holds the step alone."""
    with Ledger(path) as ledger:
        m, steps = Counted(), []
        for step in run(PLAN, m, DATA, Streams.secure(1), ledger=ledger):
            ledger.checkpoint(m.params, step)
            steps.append(step)
    _, *rest = [json.loads(line.partition(" ")[2]) for line in path.read_text().splitlines()]
    assert {tuple(told) for told in rest} == {
        ("charge",),
        ("release", "scalars", "seed", "stage"),
        ("checkpoint", "weights"),
    }
    released = [told for told in rest if "release" in told]
    assert [told["scalars"] for told in released] == [[s.hex() for s in step.scalars] for step in steps]


def test_the_ledgers_own_example_is_the_way_to_use_it(path, monkeypatch):
    (code,) = re.findall(r"(    with Ledger.*?)\n\n", ledger_room.__doc__, re.DOTALL)
    monkeypatch.chdir(path.parent)
    names = {"Ledger": Ledger, "run": run, "plan": PLAN, "model": Counted(), "data": DATA, "streams": streams()}
    exec(compile("if True:\n" + code, "example", "exec"), names)
    assert names["step"].index == T - 1
    assert read("run.ledger").charged == T
