"""Finished runs, one JSON line each, with where they come from. A crash loses the run that it hits and no other."""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import dpzo
from dpzo import Refusal
from synthetic.provenance import provenance

FORMAT = 1


def key(cell: dict[str, Any]) -> str:
    """A cell's name: its content and the version of dpzo that ran it, so that a changed recipe is another cell."""
    text = json.dumps({"cell": cell, "dpzo": dpzo.__version__, "format": FORMAT}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Results:
    """The file of finished runs: read when opened, appended to and synced after each run."""

    def __init__(self, path: Path, *, resume: bool = True) -> None:
        self.path = path
        self.notes: list[str] = []
        self.rows: dict[str, dict[str, Any]] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not resume:
                set_aside(path)
            if path.exists():
                self._read()
            with path.open("a"):
                pass
        except OSError as error:
            came = f"{path.parent}: {error.strerror}"
            raise Refusal("a folder that can be written to", came, "Give another --out.") from error

    def _read(self) -> None:
        whole = self.path.read_bytes()
        lines = whole.split(b"\n")
        tail = lines.pop()  # every whole line ends in a newline: what follows the last one was cut by a crash
        if tail and not tail.startswith(b"{"):
            lines.append(tail)  # or it is no line of ours
            tail = b""
        other = 0
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                fits = row["key"] == key(row["cell"])
            except (ValueError, KeyError, TypeError) as error:
                raise Refusal(
                    "a results file of this program",
                    f"{self.path}, line {number}: {error!r}",
                    "Mend or move the file, or give another --out.",
                ) from error
            if fits:
                self.rows[row["key"]] = row
            else:
                other += 1
        if tail:
            self.notes.append(f"{self.path.name}: its last line was cut short and is dropped; that run is done again.")
            os.truncate(self.path, len(whole) - len(tail))
        if other:
            self.notes.append(f"{self.path.name}: {other} runs of another version or format are kept but not used.")

    def add(self, cell: dict[str, Any], outcome: dict[str, Any]) -> None:
        """Append one finished run, or leave the file as it was."""
        row = {"key": key(cell), "cell": cell, **outcome, "provenance": provenance()}
        line = (json.dumps(row, sort_keys=True) + "\n").encode()
        size = None
        try:
            size = self.path.stat().st_size
            with self.path.open("ab") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            if size is not None:
                with suppress(OSError):
                    os.truncate(self.path, size)
            raise Refusal(
                f"room for {len(line)} bytes in {self.path.parent}",
                error.strerror,
                "Free some space and run the same command again: the finished runs are kept.",
            ) from error
        self.rows[row["key"]] = row

    def get(self, cell: dict[str, Any]) -> dict[str, Any] | None:
        """The finished run of a cell, if there is one."""
        return self.rows.get(key(cell))


def set_aside(path: Path) -> None:
    """Give a file or folder another name, if it is there, so that nothing goes on from it."""
    if path.exists():
        path.replace(_free_name(path))


def _free_name(path: Path) -> Path:
    number = 1
    while (name := path.with_name(f"{path.name}.{number}")).exists():
        number += 1
    return name
