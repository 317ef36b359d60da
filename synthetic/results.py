"""Finished runs, one JSON line each, with where they come from. A crash loses the run that it hits and no other.

Each line carries a seal, a hash of what is in it: a number that was edited is not tabulated. Several processes may work
on one file: each looks, before it adds a run, at what the others have added.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import dpzo
from dpzo import Refusal
from synthetic.provenance import provenance

FORMAT = 1


def key(cell: dict[str, Any]) -> str:
    """A cell's name: its content and the version of dpzo that ran it, so that a changed recipe is another cell."""
    text = json.dumps({"cell": cell, "dpzo": dpzo.__version__, "format": FORMAT}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def seal(row: dict[str, Any]) -> str:
    """A hash of all that a line holds beside its seal. Who can compute it can forge it: it guards against mistakes."""
    text = json.dumps({name: value for name, value in row.items() if name != "seal"}, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class Results:
    """The file of finished runs: read when opened, appended to and synced after each run.

    ``notes`` tell what in the file is not used: lines that are damaged, that were changed after they were written, or
    that are of another version. They stay in it, and their runs are done again.
    """

    def __init__(self, path: Path, *, resume: bool = True) -> None:
        self.path = path
        self.notes: list[str] = []
        self.rows: dict[str, dict[str, Any]] = {}
        self._end = 0  # how much of the file has been read
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not resume:
                set_aside(path)
            with self._open() as file:
                self._read(file)
        except OSError as error:
            came = f"{path.parent}: {error.strerror}"
            raise Refusal("a folder that can be written to", came, "Give another --out.") from error

    @contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        """The file, for this process alone until it is closed."""
        with self.path.open("a+b") as file:
            with suppress(ImportError):  # on Windows
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX)
            yield file

    def _read(self, file: BinaryIO) -> None:
        size = os.fstat(file.fileno()).st_size
        first = 0 if size < self._end else self._end  # shorter than before: it is another file
        file.seek(first)
        lines = file.read(size - first).split(b"\n")
        tail = lines.pop()  # every whole line ends in a newline: what follows the last one was cut by a crash
        if tail and not tail.startswith(b"{"):
            lines.append(tail)  # or it is no line of ours
            tail = b""
        rows = [_row(line) for line in lines]
        if lines and first == 0 and not any(isinstance(row, dict) for row in rows):
            came = f"{self.path}, line 1: {rows[0]}"
            raise Refusal("a results file of this program", came, "Mend or move the file, or give another --out.")
        other = 0
        for number, row in enumerate(rows, 1):
            if isinstance(row, str):
                where = f"line {number}" if first == 0 else "a line that was added meanwhile"
                self.notes.append(f"{self.path.name}, {where}: {row}; it is kept but not used.")
            elif row["key"] == key(row["cell"]):
                self.rows.setdefault(row["key"], row)
            else:
                other += 1
        if tail:
            self.notes.append(f"{self.path.name}: its last line was cut short and is dropped; that run is done again.")
            os.truncate(self.path, size - len(tail))
        if other:
            self.notes.append(f"{self.path.name}: {other} runs of another version or format are kept but not used.")
        self._end = size - len(tail)

    def add(self, cell: dict[str, Any], outcome: dict[str, Any]) -> None:
        """Append one finished run, or leave the file as it was; a run that another process has added stays the one."""
        row = {"key": key(cell), "cell": cell, **outcome, "provenance": provenance()}
        row = json.loads(json.dumps(row))  # as it will be read: tuples are lists there
        line = (json.dumps(row | {"seal": seal(row)}, sort_keys=True) + "\n").encode()
        try:
            with self._open() as file:
                self._read(file)
                if row["key"] in self.rows:
                    return
                try:
                    file.write(line)
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:
                    with suppress(OSError):
                        os.truncate(self.path, self._end)
                    raise
                self._end += len(line)
        except OSError as error:
            raise Refusal(
                f"room for {len(line)} bytes in {self.path.parent}",
                error.strerror,
                "Free some space and run the same command again: the finished runs are kept.",
            ) from error
        self.rows[row["key"]] = row

    def get(self, cell: dict[str, Any]) -> dict[str, Any] | None:
        """The finished run of a cell, if there is one."""
        return self.rows.get(key(cell))


def _row(line: bytes) -> dict[str, Any] | str:
    """What a line holds, or what is wrong with it."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return "no line of JSON"
    if not isinstance(row, dict) or not isinstance(row.get("cell"), dict) or "key" not in row:
        return "no run"
    if "seal" not in row:
        return "a run without a seal"
    return row if row.pop("seal") == seal(row) else "a run that was changed after it was written"


def set_aside(path: Path) -> None:
    """Give a file or folder another name, if it is there, so that nothing goes on from it."""
    if path.exists():
        path.replace(_free_name(path))


def _free_name(path: Path) -> Path:
    number = 1
    while (name := path.with_name(f"{path.name}.{number}")).exists():
        number += 1
    return name
