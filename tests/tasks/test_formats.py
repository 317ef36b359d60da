from pathlib import Path

import pytest

from dpzo.errors import Refusal
from dpzo.tasks import Example
from dpzo.tasks.formats import LabelFirst, Parallel, Row, Table, to_examples

CODES = {"neg": 0, "pos": 1}
NONE: frozenset[str] = frozenset()


def file(tmp_path: Path, name: str, content: str, encoding: str = "utf-8") -> Path:
    path = tmp_path / name
    path.write_text(content, encoding=encoding, newline="")
    return path


def test_label_first(tmp_path: Path) -> None:
    path = file(tmp_path, "x", "1 a gem .\n0  two spaces \n")
    assert list(LabelFirst().rows(path)) == [Row(1, ("a gem .",), "1"), Row(2, (" two spaces ",), "0")]


def test_label_first_in_latin_1_and_by_coarse_label(tmp_path: Path) -> None:
    path = file(tmp_path, "x", "LOC:city Where is Lom\xe9 ?\nNUM:dist How far\x85 ?\n", "latin-1")
    assert list(LabelFirst("latin-1", coarse=True).rows(path)) == [
        Row(1, ("Where is Lom\xe9 ?",), "LOC"),
        Row(2, ("How far\x85 ?",), "NUM"),
    ]
    with pytest.raises(Refusal, match=r"UTF-8 text; got .*x line 1: byte 0xe9"):
        list(LabelFirst().rows(path))


def test_label_first_refuses_a_line_without_text(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="x line 2: one word"):
        list(LabelFirst().rows(file(tmp_path, "x", "1 fine\n0")))


def test_parallel(tmp_path: Path) -> None:
    labels = file(tmp_path, "labels.dev", "neutral\nentailment\n")
    file(tmp_path, "s1.dev", "A . \nB . \n")
    file(tmp_path, "s2.dev", "C . \nD . \n")
    assert list(Parallel().rows(labels)) == [
        Row(1, ("A . ", "C . "), "neutral"),
        Row(2, ("B . ", "D . "), "entailment"),
    ]


def test_parallel_refuses_files_of_different_lengths_and_missing_ones(tmp_path: Path) -> None:
    labels = file(tmp_path, "labels.dev", "neutral\nentailment\n")
    file(tmp_path, "s1.dev", "A\nB\n")
    with pytest.raises(Refusal, match=r"s2\.dev: No such file"):
        list(Parallel().rows(labels))
    file(tmp_path, "s2.dev", "C\n")
    with pytest.raises(Refusal, match=r"2 lines, as many as in labels\.dev; got .*s2\.dev line 1: its last"):
        list(Parallel().rows(labels))


@pytest.mark.parametrize("columns", ["text1\ttext2", "sentence1\tsentence2", "premise\thypothesis"])
@pytest.mark.parametrize("label", ["label", "gold_label"])
def test_tables_of_pairs_under_their_usual_names(tmp_path: Path, columns: str, label: str) -> None:
    path = file(tmp_path, "a.tsv", f"index\t{columns}\t{label}\n0\tA\tB\tneg\n")
    assert list(Table(2).rows(path)) == [Row(2, ("A", "B"), "neg")]


@pytest.mark.parametrize("column", ["text", "sentence"])
def test_tables_of_single_texts(tmp_path: Path, column: str) -> None:
    assert list(Table(1).rows(file(tmp_path, "a.csv", f"label,{column}\nneg,A\n"))) == [Row(2, ("A",), "neg")]


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
        list(Table(n).rows(file(tmp_path, name, content)))


def test_examples_are_stripped_coded_and_without_unlabelled_rows() -> None:
    rows = [Row(1, (" a \n",), "pos"), Row(2, ("b",), "-"), Row(3, ("c\u00a0",), "neg")]
    assert to_examples(rows, Path("f"), CODES, frozenset({"-"})) == (Example(("a",), 1), Example(("c",), 0))


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (Row(7, ("x",), "maybe"), "a label out of neg, pos; got f line 7: 'maybe'"),
        (Row(7, ("x",), ""), "f line 7: ''"),
        (Row(7, ("",), "pos"), "f line 7: an empty one"),
        (Row(7, ("x", " \t"), "pos"), "f line 7: an empty one"),
    ],
)
def test_bad_rows_are_refused_by_file_and_line(row: Row, why: str) -> None:
    with pytest.raises(Refusal, match=why):
        to_examples([row], Path("f"), CODES, NONE)


def test_a_long_wrong_label_is_not_repeated_in_full() -> None:
    with pytest.raises(Refusal) as refused:
        to_examples([Row(1, ("x",), "s" * 500)], Path("f"), CODES, NONE)
    assert "s" * 41 not in str(refused.value)


def test_no_labelled_row_is_refused() -> None:
    with pytest.raises(Refusal, match="rows with a gold label; got f: none"):
        to_examples([Row(1, ("x",), "-")], Path("f"), CODES, frozenset({"-"}))
