"""A ledger that is taken away, exchanged or overwritten while its run goes on; its key, and who may read the two."""

import json
import os
import shutil
import stat
from itertools import product

import numpy as np
import pytest

from dpzo import Ledger, Refusal, Streams, digest, run
from dpzo.fingerprint import fingerprint
from dpzo.ledger import read
from dpzo.report import of_account
from tests.ledgers import DATA, PLAN, Counted, T, contents, goes_on, key_of, put, refused, streams

POSIX = pytest.mark.skipif(os.name != "posix", reason="a thing of POSIX systems")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.ledger"


def exchanged(path):
    """Another file of the same bytes, put there in one move."""
    copy = path.with_name("copy")
    shutil.copy(path, copy)
    copy.replace(path)


def linked(path):
    """The file itself under another name, and a link to an older copy in its place."""
    path.rename(path.with_name("moved"))
    path.with_name("older").write_bytes(contents()["header"])
    path.symlink_to(path.with_name("older"))


CHANGES = {
    "removed": lambda path: path.unlink(),
    "renamed": lambda path: path.rename(path.with_name("elsewhere")),
    "exchanged for a copy": exchanged,
    "exchanged for a link": linked,
    "exchanged for a folder": lambda path: (path.unlink(), path.mkdir()),
    "overwritten by an older copy": lambda path: path.write_bytes(contents()["header"]),
    "overwritten by other bytes": lambda path: path.write_bytes(b"x" * path.stat().st_size),
    "last line cut off": lambda path: path.write_bytes(b"".join(path.read_bytes().splitlines(True)[:-1])),
    "appended to": lambda path: path.write_bytes(path.read_bytes() + b"more"),
    "emptied": lambda path: path.write_bytes(b""),
}


@POSIX
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_ledger_that_is_not_as_the_run_left_it_stops_the_run_before_the_next_step(path, change):
    """Kills: steps that are spent and that no file tells of; a look at the inode alone (a copy written over it)."""
    m = Counted()
    with Ledger(path) as ledger:
        steps = run(PLAN, m, DATA, streams(), ledger=ledger)
        next(steps), next(steps)
        calls = m.calls
        change(path)
        left = path.read_bytes() if path.is_file() else None
        with pytest.raises(Refusal, match=r"that this run began with|as this run has left it") as refusal:
            next(steps)
        assert "what it had charged is spent" in str(refusal.value)
        assert m.calls == calls
        assert (path.read_bytes() if path.is_file() else None) == left
        with pytest.raises(Refusal):
            ledger.charge(ledger.charged)


@POSIX
def test_a_ledger_that_is_exchanged_within_a_step_lets_no_further_one_begin(path):
    class Exchanging(Counted):
        def losses(self, records):
            if self.calls == 4:
                exchanged(path)
            return super().losses(records)

    m = Exchanging()
    with Ledger(path) as ledger:
        steps = run(PLAN, m, DATA, streams(), ledger=ledger)
        assert [next(steps).index, next(steps).index] == [0, 1]
        with pytest.raises(Refusal, match="another file"):
            next(steps)
    assert m.calls == 6, "the step that was paid for, and no other"


@POSIX
def test_a_ledger_that_is_put_back_is_gone_on_with(path):
    with Ledger(path) as ledger:
        steps = run(PLAN, Counted(), DATA, streams(), ledger=ledger)
        taken = [next(steps), next(steps)]
        path.rename(path.with_name("elsewhere"))
        with pytest.raises(Refusal, match="No such file"):
            next(steps)
        path.with_name("elsewhere").rename(path)
        again = list(run(PLAN, Counted(), DATA, streams(), ledger=ledger))
    assert again[:2] == taken
    assert [step.index for step in again] == list(range(T)), "the refused step was not charged"


def test_another_working_folder_in_the_middle_of_a_run_is_no_matter(path, monkeypatch, tmp_path):
    monkeypatch.chdir(path.parent)
    with Ledger(path.name) as ledger:
        steps = run(PLAN, Counted(), DATA, streams(), ledger=ledger)
        next(steps)
        monkeypatch.chdir("/")
        assert len(list(steps)) == T - 1


# The key, and who may read


@POSIX
@pytest.mark.parametrize(("umask", "had"), [*product([0o000, 0o022], [None, 0o644, 0o666])])
def test_ledger_and_key_are_for_their_owner_alone(path, umask, had):
    before = os.umask(umask)
    try:
        if had is not None:
            put(path, contents()["release"])
            path.chmod(had), key_of(path).chmod(had)
        goes_on(path)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}


@POSIX
def test_a_file_that_is_no_ledger_keeps_its_mode(path):
    path.write_bytes(b"my notes")
    path.chmod(0o644)
    refused(path, "no file")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_neither_the_ledger_nor_what_is_published_holds_a_hash_that_others_can_compute(path):
    """Kills: a fingerprint that confirms the last record to whoever knows the others."""
    named = "my data, version 3"
    for data in (None, named):
        with Ledger(path, data=data) as ledger:
            steps = list(run(PLAN, Counted(), DATA, Streams.secure(1), ledger=ledger))
        account, key = read(path), key_of(path).read_text().strip()
        statement = of_account(account, 1e-5)
        public = [path.read_text(), statement.json(), statement.markdown(), digest(steps)]
        for secret in (fingerprint(DATA), fingerprint(DATA[np.arange(len(DATA))]), named, key):
            assert not [text for text in public if secret in text]
        for text in public[1:]:
            assert account.header["data"] not in text
        path.unlink()
        key_of(path).unlink()


def test_each_run_has_its_own_key_and_so_another_hash_of_the_same_data(path):
    seen = set()
    for _ in range(3):
        goes_on(path)
        seen |= {key_of(path).read_text(), read(path).header["data"]}
        path.unlink()  # the key that is left is of no use to the next run
    assert len(seen) == 6


@pytest.mark.parametrize("key", [None, b"", b"0" * 64, b"0" * 63 + b"\n", b"not a key\n", "folder"])
def test_a_ledger_without_its_key_is_read_and_not_gone_on_with(path, key):
    put(path, contents()["release"])
    key_of(path).unlink()
    if key == "folder":
        key_of(path).mkdir()
    elif key is not None:
        key_of(path).write_bytes(key)
    refused(path, "key at .*start a new ledger and add up")
    assert read(path).charged == 3


def test_another_key_is_other_data(path):
    put(path, contents()["release"])
    key_of(path).write_bytes(b"0" * 64 + b"\n")
    refused(path, "the data of the run")


def test_a_new_run_overwrites_nothing_but_a_key(path):
    key_of(path).write_text("my own notes")
    path.touch()
    refused(path, "key at .*something else")
    assert key_of(path).read_text() == "my own notes"


def test_the_key_is_on_the_disk_before_the_first_line(path, monkeypatch):
    """Kills: a ledger that nobody can go on with, because the power went between the two."""
    seen, fsync = [], os.fsync

    def noted(handle):
        fsync(handle)
        seen.append((key_of(path).exists(), path.read_bytes().count(b"\n")))

    monkeypatch.setattr(os, "fsync", noted)
    with Ledger(path) as ledger:
        run(PLAN, Counted(), DATA, streams(), ledger=ledger)
    assert (True, 0) in seen
    assert [exists for exists, lines in seen if lines] == [True]
    assert json.loads(path.read_text().partition(" ")[2])["data"]
