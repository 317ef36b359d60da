from pathlib import Path

import pytest

from dpzo.errors import Refusal
from dpzo.tasks import Example
from dpzo.tasks.formats import Format, LabelFirst, Parallel, Row, Table, to_examples
from dpzo.tasks.lines import Faults

CODES = {"neg": 0, "pos": 1}
NONE: frozenset[str] = frozenset()


def rows_of(form: Format, path: Path) -> list[Row]:
    faults = Faults(path)
    rows = list(form.rows(path, faults))
    faults.refuse()
    return rows


def file(tmp_path: Path, name: str, content: str, encoding: str = "utf-8") -> Path:
    path = tmp_path / name
    path.write_text(content, encoding=encoding, newline="")
    return path


def test_label_first(tmp_path: Path) -> None:
    path = file(tmp_path, "x", "1 a gem .\n0  two spaces \n")
    assert rows_of(LabelFirst(), path) == [Row(1, ("a gem .",), "1"), Row(2, (" two spaces ",), "0")]


def test_label_first_in_latin_1_and_by_coarse_label(tmp_path: Path) -> None:
    path = file(tmp_path, "x", "LOC:city Where is Lom\xe9 ?\nNUM:dist How far\x85 ?\n", "latin-1")
    assert rows_of(LabelFirst("latin-1", coarse=True), path) == [
        Row(1, ("Where is Lom\xe9 ?",), "LOC"),
        Row(2, ("How far\x85 ?",), "NUM"),
    ]
    with pytest.raises(Refusal, match=r"UTF-8 text; got .*x line 1: something else at byte 22; line 2"):
        rows_of(LabelFirst(), path)


def test_label_first_refuses_a_line_without_text(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="x line 2: one word"):
        rows_of(LabelFirst(), file(tmp_path, "x", "1 fine\n0"))


def test_parallel(tmp_path: Path) -> None:
    labels = file(tmp_path, "labels.dev", "neutral\nentailment\n")
    file(tmp_path, "s1.dev", "A . \nB . \n")
    file(tmp_path, "s2.dev", "C . \nD . \n")
    assert rows_of(Parallel(), labels) == [
        Row(1, ("A . ", "C . "), "neutral"),
        Row(2, ("B . ", "D . "), "entailment"),
    ]


def test_parallel_refuses_files_of_different_lengths_and_missing_ones(tmp_path: Path) -> None:
    labels = file(tmp_path, "labels.dev", "neutral\nentailment\n")
    file(tmp_path, "s1.dev", "A\nB\n")
    with pytest.raises(Refusal, match=r"s2\.dev: No such file"):
        rows_of(Parallel(), labels)
    file(tmp_path, "s2.dev", "C\n")
    with pytest.raises(Refusal, match=r"2 lines, as many as in labels\.dev; got .*s2\.dev line 1: its last"):
        rows_of(Parallel(), labels)


@pytest.mark.parametrize("columns", ["text1\ttext2", "sentence1\tsentence2", "premise\thypothesis"])
@pytest.mark.parametrize("label", ["label", "gold_label"])
def test_tables_of_pairs_under_their_usual_names(tmp_path: Path, columns: str, label: str) -> None:
    path = file(tmp_path, "a.tsv", f"index\t{columns}\t{label}\n0\tA\tB\tneg\n")
    assert rows_of(Table(2), path) == [Row(2, ("A", "B"), "neg")]


@pytest.mark.parametrize("column", ["text", "sentence"])
def test_tables_of_single_texts(tmp_path: Path, column: str) -> None:
    assert rows_of(Table(1), file(tmp_path, "a.csv", f"label,{column}\nneg,A\n")) == [Row(2, ("A",), "neg")]


@pytest.mark.parametrize(
    ("n", "name", "content", "line"),
    [
        (1, "a.csv", "body,label\nx,0\n", 1),
        (1, "a.csv", "text,class\nx,0\n", 1),
        (2, "a.csv", "text,label\nx,0\n", 1),
        (2, "a.tsv", "text1\tlabel\nx\t0\n", 1),
        (1, "a.jsonl", '{"text": "x", "label": 0}\n{"text": "x"}\n', 2),
        (1, "a.jsonl", '{"text": null, "label": 0}\n', 1),
        (1, "a.jsonl", '{"text": "x", "label": true}\n', 1),
    ],
)
def test_wrong_columns_are_refused(tmp_path: Path, n: int, name: str, content: str, line: int) -> None:
    with pytest.raises(Refusal, match=f"expected columns .*{name} line {line}:"):
        rows_of(Table(n), file(tmp_path, name, content))


def test_examples_are_stripped_coded_and_without_unlabelled_rows() -> None:
    rows = [Row(1, (" a \n",), "pos"), Row(2, ("b",), "-"), Row(3, ("c\u00a0",), "neg")]
    assert to_examples(rows, Faults(Path("f")), CODES, frozenset({"-"})) == (Example(("a",), 1), Example(("c",), 0))


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (Row(7, ("x",), "maybe"), r"a label out of neg, pos; got f line 7: another\."),
        (Row(7, ("x",), ""), r"f line 7: another\."),
        (Row(7, ("",), "pos"), r"f line 7: an empty one\."),
        (Row(7, ("x", " \t"), "pos"), r"f line 7: an empty one\."),
    ],
)
def test_bad_rows_are_refused_by_file_and_line(row: Row, why: str) -> None:
    with pytest.raises(Refusal, match=why):
        to_examples([row], Faults(Path("f")), CODES, NONE)


def test_all_bad_rows_are_refused_at_once_and_of_many_the_first_twenty() -> None:
    bad = {3: ("", "pos"), 5: ("x", "maybe"), 9: ("odd \ud800", "neg")}
    rows = [Row(n, (bad.get(n, ("x", "pos"))[0],), bad.get(n, ("x", "pos"))[1]) for n in range(1, 11)]
    with pytest.raises(Refusal) as refused:
        to_examples(rows, Faults(Path("f")), CODES, NONE)
    assert str(refused.value) == (
        "expected a text that is not empty; a label out of neg, pos; a text of whole characters; "
        "got f line 3: an empty one; line 5: another; line 9: half of a surrogate pair. Remove the row. "
        "Is this another task's file? Otherwise correct the label. Mend or remove the row."
    )
    with pytest.raises(Refusal) as refused:
        to_examples([Row(n, ("x",), "maybe") for n in range(1, 1301)], Faults(Path("f")), CODES, NONE)
    assert "; line 20: another; and 1,280 more. " in str(refused.value)
    assert "line 21" not in str(refused.value)


def test_no_labelled_row_is_refused() -> None:
    with pytest.raises(Refusal, match="rows with a gold label; got f: none"):
        to_examples([Row(1, ("x",), "-")], Faults(Path("f")), CODES, frozenset({"-"}))
