"""The file of finished runs: nothing in it is lost, whatever happens to it."""

import errno
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

import dpzo
from dpzo import Refusal
from reproduce.engine import Cell
from reproduce.recipes import recipe
from reproduce.results import Results, key
from synthetic import results

ROOT = Path(dpzo.__file__).parents[1]
CELL = Cell("sst2", "folder abc", "dpzero", 6.0, 50.0, 42, "paper", asdict(recipe("paper", None)))
A, B, C = (asdict(replace(CELL, seed=seed)) for seed in (1, 2, 3))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with the runs A and B."""
    file = tmp_path / "out" / "runs.jsonl"
    made = Results(file)
    made.add(A, {"test_accuracy": 0.5})
    made.add(B, {"test_accuracy": 0.25})
    return file


def test_runs_are_found_again_with_their_provenance(path: Path) -> None:
    again = Results(path)
    assert again.notes == []
    assert again.get(C) is None
    run = again.get(B)
    assert run is not None
    assert run["test_accuracy"] == 0.25
    assert len(path.read_bytes().splitlines()) == 2
    told = run["provenance"]
    assert told["versions"]["dpzo"] == dpzo.__version__
    assert {"torch", "transformers", "tokenizers", "dp-accounting", "numpy", "scipy", "python"} <= set(told["versions"])
    assert told["commit"] is None or len(told["commit"].removesuffix("+changes")) == 40
    assert {"system", "processor", "cores", "threads", "gpu"} == set(told["machine"])
    assert told["machine"]["cores"] == os.cpu_count()


def test_the_key_changes_with_every_field_of_cell_and_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = asdict(CELL)
    variants = [{**cell, name: "other"} for name in cell]
    variants += [{**cell, "recipe": {**cell["recipe"], name: "other"}} for name in cell["recipe"]]
    keys = [key(cell), *map(key, variants)]
    monkeypatch.setattr(dpzo, "__version__", "9.9")
    keys.append(key(cell))
    monkeypatch.setattr(results, "FORMAT", 99)
    keys.append(key(cell))
    assert len(set(keys)) == len(keys) == len(cell) + len(cell["recipe"]) + 3


def test_the_key_survives_the_way_through_json() -> None:
    assert key(json.loads(json.dumps(A))) == key(A)


@pytest.mark.parametrize("cut", [1, 2, 30, 200])
def test_a_last_line_cut_by_a_crash_is_dropped_and_said(path: Path, cut: int) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    again = Results(path)
    assert len(again.notes) == 1
    assert "last line was cut short" in again.notes[0]
    assert again.get(A) is not None
    assert again.get(B) is None
    first = whole.splitlines(keepends=True)[0]
    assert path.read_bytes() == first
    again.add(B, {"test_accuracy": 0.75})
    run = Results(path).get(B)
    assert run is not None
    assert run["test_accuracy"] == 0.75
    assert path.read_bytes().startswith(first)


def test_runs_of_another_version_are_kept_and_not_used(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = path.read_bytes()
    monkeypatch.setattr(dpzo, "__version__", "9.9")
    new = Results(path)
    assert new.notes == ["runs.jsonl: 2 runs of another version or format are kept but not used."]
    assert new.get(A) is None
    new.add(A, {"test_accuracy": 0.9})
    assert path.read_bytes().startswith(old)
    monkeypatch.undo()
    run = Results(path).get(A)
    assert run is not None
    assert run["test_accuracy"] == 0.5


@pytest.mark.parametrize(
    "content",
    [
        b"hello\n", b"{}\n", b"[1, 2]\n", b"3\n", b'{"key": "x"}\n', b'{"key": "x", "cell": {}}\n\n{}\n', b"\xff\xfe\n",
        b"hello", b"a,b\n1,2", b"\x89PNG\r\n\x1a\n\x00\x00", b'{"cell": {}}\n{"key": ',
    ],
)  # fmt: skip
def test_a_file_of_another_program_is_refused_and_not_touched(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "runs.jsonl"
    file.write_bytes(content)
    with pytest.raises(Refusal, match=r"a results file of this program; got .*runs\.jsonl, line 1|line 2"):
        Results(file)
    assert file.read_bytes() == content


def test_an_empty_file_is_fine(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    file.write_bytes(b"")
    assert Results(file).rows == {}


def full(*arguments: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_refused_and_the_file_is_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()
    open_results = Results(path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Refusal, match=r"room for \d+ bytes in .*out; got No space left on device\. Free some space"):
        open_results.add(C, {"test_accuracy": 0.1})
    assert path.read_bytes() == before
    assert open_results.get(C) is None
    monkeypatch.undo()
    open_results.add(C, {"test_accuracy": 0.1})
    assert Results(path).get(C) is not None


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_disk_that_takes_nothing_is_refused(tmp_path: Path) -> None:
    made = Results(tmp_path / "runs.jsonl")
    made.path.unlink()
    made.path.symlink_to("/dev/full")
    with pytest.raises(Refusal, match="No space left on device"):
        made.add(A, {})


def test_a_folder_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(Refusal, match=r"a folder that can be written to; got .*file"):
        Results(tmp_path / "file" / "runs.jsonl")
    assert (tmp_path / "file").read_text() == "mine"
    (tmp_path / "runs.jsonl").mkdir()
    with pytest.raises(Refusal, match="a folder that can be written to"):
        Results(tmp_path / "runs.jsonl")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(Refusal, match="Permission denied"):
        Results(tmp_path / "runs.jsonl")


def test_a_folder_removed_in_the_middle_is_refused_not_a_traceback(path: Path) -> None:
    made = Results(path)
    path.unlink()
    path.parent.rmdir()
    with pytest.raises(Refusal, match="No such file or directory"):
        made.add(C, {})


def test_without_resume_every_older_file_is_set_aside(path: Path) -> None:
    first = path.read_bytes()
    assert Results(path, resume=False).rows == {}
    assert path.read_bytes() == b""
    assert path.with_name("runs.jsonl.1").read_bytes() == first
    Results(path, resume=False).add(A, {"x": 1})
    second = path.read_bytes()
    Results(path, resume=False)
    kept: dict[str, Any] = {p.name: p.read_bytes() for p in path.parent.iterdir()}
    assert kept == {"runs.jsonl": b"", "runs.jsonl.1": first, "runs.jsonl.2": b"", "runs.jsonl.3": second}


def edited(path: Path, old: bytes, new: bytes) -> bytes:
    whole = path.read_bytes()
    assert whole.count(old) == 1
    path.write_bytes(whole.replace(old, new))
    return path.read_bytes()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"test_accuracy": 0.5', b'"test_accuracy": 0.9'),
        (b'"test_accuracy": 0.5', b'"test_accuracy": 0.50'),
        (b'"test_accuracy": 0.5', b'"test_accuracy": 0.5, "more": 1'),
        (b', "test_accuracy": 0.5', b""),
    ],
)
def test_an_edited_number_is_said_and_not_used(path: Path, old: bytes, new: bytes) -> None:
    """Kills: an accuracy that somebody improved by hand, in the table as if it had been measured."""
    whole = edited(path, old, new)
    again = Results(path)
    if new == b'"test_accuracy": 0.50':  # the same number
        assert again.notes == []
        return
    assert again.notes == ["runs.jsonl, line 1: a run that was changed after it was written; it is kept but not used."]
    assert again.get(A) is None
    assert again.get(B) is not None
    again.add(A, {"test_accuracy": 0.125})
    assert path.read_bytes().startswith(whole)
    run = Results(path).get(A)
    assert run is not None
    assert run["test_accuracy"] == 0.125


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda line: line[:40] + b"\n", "no line of JSON"),
        (lambda line: b"\n", "no line of JSON"),
        (lambda line: b"\x00" * 50 + b"\n", "no line of JSON"),
        (lambda line: b"[1]\n", "no run"),
        (lambda line: line.replace(b'"seal"', b'"sael"'), "a run without a seal"),
        (lambda line: line.replace(b"0.25", b"0.35"), "a run that was changed after it was written"),
    ],
)
def test_a_damaged_line_in_the_middle_costs_that_run_and_no_other(path: Path, damage: Any, why: str) -> None:
    Results(path).add(C, {"test_accuracy": 0.1})
    first, middle, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + damage(middle) + last)
    again = Results(path)
    assert again.notes == [f"runs.jsonl, line 2: {why}; it is kept but not used."]
    assert [again.get(cell) is not None for cell in (A, B, C)] == [True, False, True]
    again.add(B, {"test_accuracy": 0.75})
    assert path.read_bytes().startswith(first + damage(middle) + last)
    assert [Results(path).get(cell) is not None for cell in (A, B, C)] == [True, True, True]


def test_two_that_work_on_one_file_leave_one_line_for_a_run(path: Path) -> None:
    """Kills: the line of each, and a table of whichever came last."""
    one, other = Results(path), Results(path)
    one.add(C, {"test_accuracy": 0.1})
    other.add(C, {"test_accuracy": 0.2})
    assert len(path.read_bytes().splitlines()) == 3
    for view in (one, other, Results(path)):
        run = view.get(C)
        assert run is not None
        assert run["test_accuracy"] == 0.1
        assert view.notes == []


@pytest.mark.skipif(os.name != "posix", reason="files are locked on POSIX systems")
def test_a_run_is_looked_for_and_added_under_one_lock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: two that both see a run missing, and both add it."""
    import fcntl

    seen, read, fsync = [], Results._read, os.fsync

    def locked() -> bool:
        with path.open("rb") as other:
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    made = Results(path)
    monkeypatch.setattr(Results, "_read", lambda *a: (seen.append(("read", locked())), read(*a)))
    monkeypatch.setattr(os, "fsync", lambda handle: (seen.append(("written", locked())), fsync(handle)))
    made.add(C, {"test_accuracy": 0.1})
    assert seen == [("read", True), ("written", True)]
    assert not locked()


WORKER = """
import sys
from pathlib import Path
from reproduce.results import Results
results, me = Results(Path(sys.argv[1])), int(sys.argv[2])
print("open", flush=True)
sys.stdin.readline()
for number in range(15):
    results.add({"number": number}, {"worker": me, "text": "x" * 20_000})
"""


@pytest.mark.skipif(os.name != "posix", reason="files are locked on POSIX systems")
def test_processes_that_write_at_once_tear_no_line_and_repeat_no_run(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(part for part in sys.path if part)}
    command = [sys.executable, "-c", WORKER, str(file)]
    workers = [
        subprocess.Popen([*command, str(me)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        for me in range(2)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "open\n"
    for worker in workers:
        worker.communicate("go\n", timeout=300)
    assert [worker.returncode for worker in workers] == [0, 0]
    again = Results(file)
    assert again.notes == []
    assert len(file.read_bytes().splitlines()) == len(again.rows) == 15
    assert all(again.get({"number": number}) is not None for number in range(15))


@pytest.mark.parametrize("file", sorted((ROOT / "reproduce" / "results").glob("*.jsonl")), ids=lambda p: p.name)
def test_every_committed_number_is_as_it_was_written(file: Path) -> None:
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        assert isinstance(results._row(line), dict), f"line {number}"
