"""A disk that cannot be written or fills up stops a run before its next step."""

import os
from contextlib import contextmanager
from itertools import islice

import pytest

from dpzo import Ledger, Refusal, run
from dpzo.ledger import read
from tests.ledgers import DATA, PLAN, Counted, T, contents, goes_on, put, streams

POSIX = pytest.mark.skipif(os.name != "posix", reason="a thing of POSIX systems")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.ledger"


def test_paths_that_cannot_be_a_ledger(tmp_path):
    (tmp_path / "file").touch()
    for bad in (tmp_path, tmp_path / "no folder" / "run.ledger", tmp_path / "file" / "run.ledger"):
        with pytest.raises(Refusal, match="a ledger at"):
            Ledger(bad)
        with pytest.raises(Refusal, match="a ledger at"):
            read(bad)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]


@POSIX
@pytest.mark.parametrize("device", ["/dev/full", "/dev/null", "pipe"])
def test_devices_and_pipes_are_no_ledgers(tmp_path, device):
    """Kills: a charge that the device forgets; a read that never ends."""
    if device == "pipe":
        device = tmp_path / "pipe"
        os.mkfifo(device)
    elif not os.path.exists(device):
        pytest.skip(f"no {device}")
    for opening in (Ledger, read):
        with pytest.raises(Refusal, match="not a file"):
            opening(device)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser writes everywhere")
@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_ledger_that_may_not_be_written(tmp_path, what):
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "run.ledger"
    if what == "file":
        put(path, contents()["release"])
        path.chmod(0o400)
    else:
        folder.chmod(0o500)
    with pytest.raises(Refusal, match="Permission denied"):
        Ledger(path)
    folder.chmod(0o700)
    assert path.exists() == (what == "file")


@contextmanager
def no_file_longer_than(size):
    """A real limit: the system writes what fits of a line, then fails."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_up_stops_the_run_before_the_next_step_and_the_same_command_goes_on(path):
    """Kills: a step that goes on uncharged; half a line left; a line added after half a line."""
    expected = list(run(PLAN, Counted(), DATA, streams()))
    outcomes = set()
    for room in range(0, 400, 7):
        path.unlink(missing_ok=True)
        m = Counted()
        with Ledger(path) as ledger:
            steps = run(PLAN, m, DATA, streams(), ledger=ledger)
            taken = list(islice(steps, 2))
            with no_file_longer_than(path.stat().st_size + room), pytest.raises(Refusal, match="room for a line"):
                taken.extend(steps)
            content = path.read_bytes()
            assert content.endswith(b"\n")
            assert content.count(b'"charge"') * 2 == m.calls, "each step that the model saw is charged, and no other"
            with pytest.raises(Refusal, match="broke off"):
                ledger.charge(ledger.charged)
            with pytest.raises(Refusal, match=r"broke off|whole step"):
                ledger.checkpoint(m.params, taken[-1])
            assert path.read_bytes() == content
        account = read(path)
        lost = account.charged - len(account.steps)
        outcomes.add(lost)
        if lost == 0:
            assert goes_on(path) == expected
        else:
            assert [step.index for step in goes_on(path)] == [i for i in range(T) if i != account.charged - 1]
        assert read(path).charged == T
    assert outcomes == {0, 1}


def test_a_disk_that_is_full_from_the_beginning(path):
    m = Counted()
    with no_file_longer_than(0), Ledger(path) as ledger, pytest.raises(Refusal, match=r"can be written at .*key"):
        run(PLAN, m, DATA, streams(), ledger=ledger)
    assert m.calls == 0
    assert path.read_bytes() == b""
    assert len(goes_on(path)) == T
