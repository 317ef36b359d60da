"""Text files as lines and tables; whatever is wrong with a file is refused by its name and line."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

from dpzo.errors import Refusal


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """The whole file as text; a Refusal if it is missing, unreadable, empty or not in that encoding."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Refusal("a readable file", f"{path}: {error.strerror}", "Check the path.") from error
    try:
        # Spreadsheet programs put a byte-order mark before UTF-8; "utf-8-sig" takes it off.
        text = data.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Refusal(
            "UTF-8 text",
            f"{path} line {line}: byte 0x{data[error.start]:02x} at offset {error.start}",
            "Convert the file to UTF-8.",
        ) from error
    if not text.strip():
        raise Refusal("rows of data", f"{path}: an empty file", "Fetch or write the file again.")
    return text


def read_lines(path: Path, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """The lines with their numbers from 1; an empty line inside the file is refused as an empty row."""
    # Not splitlines(): Latin-1 movie reviews hold 0x85, at which it would break a row in two.
    lines = read_text(path, encoding).rstrip("\r\n").split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            raise Refusal("a row on every line", f"{path} line {number}: an empty line", "Remove or fill it.")
        yield number, line.removesuffix("\r")


def read_table(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a .csv, .tsv or .jsonl file by column name, each with the line where it begins.

    CSV may quote and span lines; TSV never quotes, as in GLUE. The first line of both names the columns. A JSON
    line is one object. A Refusal names the line of a row that is cut short, too long or not parseable.
    """
    if path.suffix == ".jsonl":
        yield from _json_rows(path)
        return
    if path.suffix not in (".csv", ".tsv"):
        raise Refusal("a .csv, .tsv or .jsonl file", path, "Rename or convert it.")
    cells = _csv_cells(path) if path.suffix == ".csv" else _tsv_cells(path)
    header = [name.strip() for name in next(cells)[1]]
    rows = 0
    for number, row in cells:
        if len(row) != len(header):
            raise Refusal(
                f"{len(header)} columns ({', '.join(header)})",
                f"{path} line {number}: {len(row)} columns",
                "The file may be cut short or badly quoted: fetch or write it again.",
            )
        rows += 1
        yield number, dict(zip(header, row, strict=True))
    if not rows:
        raise Refusal("rows after the line of column names", f"{path}: none", "Fetch or write the file again.")


def column_names(path: Path) -> tuple[str, ...]:
    """The column names of a .csv, .tsv or .jsonl file (of its first object), without reading its rows."""
    if path.suffix == ".jsonl":
        return tuple(next(_json_rows(path))[1])
    cells = _csv_cells(path) if path.suffix == ".csv" else _tsv_cells(path)
    return tuple(name.strip() for name in next(cells)[1])


def _tsv_cells(path: Path) -> Iterator[tuple[int, list[str]]]:
    for number, line in read_lines(path):
        yield number, line.split("\t")


def _csv_cells(path: Path) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    number = 1
    try:
        for row in reader:
            if row:
                yield number, row
            number = reader.line_num + 1
    except csv.Error as error:
        raise Refusal(
            "well-formed CSV",
            f"{path} line {number}: {error}",
            "The row may be cut short or badly quoted: fetch or write the file again.",
        ) from error


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    for number, line in read_lines(path):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise Refusal(
                "one JSON object per line",
                f"{path} line {number}: {error.msg} at column {error.colno}",
                "The line may be cut short: fetch or write the file again.",
            ) from error
        if not isinstance(row, dict):
            raise Refusal("one JSON object per line", f"{path} line {number}: a {type(row).__name__}", "Write objects.")
        # Labels may be JSON numbers; anything else that is no string stays out and is then a missing column.
        yield (
            number,
            {k: str(v) for k, v in row.items() if isinstance(v, str | int) and not isinstance(v, bool)},
        )
