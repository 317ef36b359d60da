"""Text files as lines and tables. What is wrong is said by file and line, all at once, and never by its content."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from threading import Lock

from dpzo.errors import Refusal, content

_SHOWN = 20
_CONVERT = "Convert the file to UTF-8."
_AGAIN = "The file may be cut short or badly quoted: fetch or write it again."


class Faults:
    """What is wrong with the lines of a file, gathered, so that one refusal names all of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found: list[tuple[int, str, str, str]] = []

    def add(self, line: int, expected: str, came: str, todo: str) -> None:
        """Note that ``line`` was expected to be something else; ``came`` tells nothing of what is in it."""
        self._found.append((line, expected, came, todo))

    def refuse(self) -> None:
        """Raise a Refusal of all that was noted, if anything was; of more than twenty lines the first twenty."""
        if not self._found:
            return
        found = sorted(self._found, key=lambda fault: fault[0])
        expected = "; ".join(dict.fromkeys(expected for _, expected, _, _ in found))
        todo = " ".join(dict.fromkeys(todo for _, _, _, todo in found))
        lines = "; ".join(f"line {line}: {came}" for line, _, came, _ in found[:_SHOWN])
        more = f"; and {len(found) - _SHOWN:,} more" if len(found) > _SHOWN else ""
        raise Refusal(expected, f"{self.path} {lines}{more}", todo)


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """The whole file as text; a Refusal if it is missing, unreadable, empty or not in that encoding."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Refusal("a readable file", f"{path}: {error.strerror}", "Check the path.") from None
    # Spreadsheet programs put a byte-order mark before UTF-8; "utf-8-sig" takes it off.
    text, faults = data.decode("utf-8-sig" if encoding == "utf-8" else encoding, "replace"), Faults(path)
    if "\ufffd" in text:
        for number, line in enumerate(data.split(b"\n"), start=1):
            try:
                line.decode(encoding)
            except UnicodeDecodeError as error:
                faults.add(number, "UTF-8 text", f"something else at byte {error.start + 1}", _CONVERT)
    faults.refuse()
    if not text.strip():
        raise Refusal("rows of data", f"{path}: an empty file", "Fetch or write the file again.")
    return text


def read_lines(path: Path, encoding: str = "utf-8", faults: Faults | None = None) -> Iterator[tuple[int, str]]:
    """The lines with their numbers from 1. An empty line inside the file is an empty row, which is a fault.

    Faults go to ``faults`` and their lines are left out; without it they are refused after the last line.
    """
    mine = Faults(path) if faults is None else faults
    # Not splitlines(): Latin-1 movie reviews hold 0x85, at which it would break a row in two.
    lines = read_text(path, encoding).rstrip("\r\n").split("\n")
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield number, line.removesuffix("\r")
        else:
            mine.add(number, "a row on every line", "an empty line", "Remove or fill it.")
    if faults is None:
        mine.refuse()


def read_table(path: Path, faults: Faults | None = None) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a .csv, .tsv or .jsonl file by column name, each with the line where it begins.

    CSV may quote and span lines; TSV never quotes, as in GLUE. The first line of both names the columns. A JSON
    line is one object. Rows that are cut short, too long or not parseable are faults: see ``read_lines``.
    """
    mine = Faults(path) if faults is None else faults
    yield from _json_rows(path, mine) if path.suffix == ".jsonl" else _table_rows(path, mine)
    if faults is None:
        mine.refuse()


def column_names(path: Path) -> tuple[str, ...]:
    """The column names of a .csv, .tsv or .jsonl file (of its first object), without looking at its rows."""
    faults = Faults(path)
    first: tuple[int, list[str]] | tuple[int, dict[str, str]] | None
    first = next(_json_rows(path, faults) if path.suffix == ".jsonl" else _cells(path, faults), None)
    if first is None:
        faults.refuse()
    return () if first is None else tuple(name.strip() for name in first[1])


def _table_rows(path: Path, faults: Faults) -> Iterator[tuple[int, dict[str, str]]]:
    cells = _cells(path, faults)
    first = next(cells, None)
    header = [] if first is None else [name.strip() for name in first[1]]
    number = 0
    for number, row in cells:
        if len(row) == len(header):
            yield number, dict(zip(header, row, strict=True))
        else:
            faults.add(number, f"{len(header)} columns, as on line 1", f"{len(row)} columns", _AGAIN)
    if not number:
        faults.refuse()
        raise Refusal("rows after the line of column names", f"{path}: none", "Fetch or write the file again.")


def _cells(path: Path, faults: Faults) -> Iterator[tuple[int, list[str]]]:
    if path.suffix == ".csv":
        return _csv_cells(path, faults)
    if path.suffix == ".tsv":
        return ((number, line.split("\t")) for number, line in read_lines(path, faults=faults))
    raise Refusal("a .csv, .tsv or .jsonl file", path, "Rename or convert it.")


_limit = Lock()


def _csv_cells(path: Path, faults: Faults) -> Iterator[tuple[int, list[str]]]:
    text = read_text(path)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    number = 1
    while True:
        # The longest cell that csv takes is one number for the whole process, 131,072 unless somebody has set it.
        with _limit:
            before = csv.field_size_limit(min(max(len(text), 131_072), 2**31 - 1))
            try:
                row = next(reader, None)
                failed = ""
            except csv.Error as error:
                row, failed = None, str(error)
            finally:
                csv.field_size_limit(before)
        if failed:
            faults.add(number, "well-formed CSV", f"{failed}, and what follows cannot be read", _AGAIN)
        if row is None:
            return
        if row:
            yield number, row
        number = reader.line_num + 1


def _json_rows(path: Path, faults: Faults) -> Iterator[tuple[int, dict[str, str]]]:
    expected = "one JSON object per line"
    for number, line in read_lines(path, faults=faults):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            what = error.msg.partition(":")[0].removesuffix(" at")
            faults.add(number, expected, f"{what} at column {error.colno}", _AGAIN)
            continue
        except (ValueError, RecursionError):  # a number of thousands of digits, brackets a thousand deep
            faults.add(number, expected, "no such object", _AGAIN)
            continue
        if not isinstance(row, dict):
            faults.add(number, expected, f"a {type(row).__name__}", "Write objects.")
            continue
        # Labels may be JSON numbers; anything else that is no string stays out and is then a missing column.
        yield number, {k: str(v) for k, v in row.items() if isinstance(v, str | int) and not isinstance(v, bool)}


def named(columns: list[str] | tuple[str, ...] | dict[str, str], known: tuple[str, ...]) -> str:
    """Which of the ``known`` columns are there; others only by their number: the first line may be a record."""
    there = [name for name in known if name in columns]
    return f"{len(columns)} columns, of them {', '.join(there) if there else 'none so named'}" + content(
        ", ".join(columns)
    )
