import csv
from pathlib import Path

import pytest

from dpzo.errors import Refusal
from dpzo.tasks.lines import column_names, read_lines, read_table, read_text


def file(tmp_path: Path, name: str, content: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_lines_are_numbered_and_only_newlines_end_them(tmp_path: Path) -> None:
    path = file(tmp_path, "a.txt", b"one\x85still\r\ntwo\n")
    assert list(read_lines(path, "latin-1")) == [(1, "one\x85still"), (2, "two")]
    path = file(tmp_path, "b.txt", "one\u2028still\ntwo")
    assert list(read_lines(path)) == [(1, "one\u2028still"), (2, "two")]


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    assert read_text(file(tmp_path, "a.txt", b"\xef\xbb\xbfx")) == "x"


@pytest.mark.parametrize("content", [b"", b"\n\n", b"  \r\n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(Refusal, match=r"a\.csv: an empty file"):
        list(read_table(file(tmp_path, "a.csv", content)))


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"no\.csv: No such file"):
        read_text(tmp_path / "no.csv")
    with pytest.raises(Refusal, match="directory"):
        read_text(tmp_path)


def test_another_encoding_is_refused_by_line_byte_and_offset(tmp_path: Path) -> None:
    path = file(tmp_path, "a.tsv", b"text\tlabel\nfine\t0\ncaf\xe9\t1\n")
    with pytest.raises(Refusal, match=r"a\.tsv line 3: something else at byte 4\."):
        list(read_table(path))


def test_an_empty_line_inside_is_refused_and_at_the_end_is_not(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="line 2: an empty line"):
        list(read_lines(file(tmp_path, "a.txt", "x\n \ny\n")))
    assert len(list(read_lines(file(tmp_path, "b.txt", "x\ny\n\n")))) == 2


def test_csv_quotes_and_spans_lines_and_rows_are_numbered_by_their_first(tmp_path: Path) -> None:
    path = file(tmp_path, "a.csv", 'text,label\n"a, ""b""\nc",0\nd,1\n\ne,1\n')
    assert list(read_table(path)) == [
        (2, {"text": 'a, "b"\nc', "label": "0"}),
        (4, {"text": "d", "label": "1"}),
        (6, {"text": "e", "label": "1"}),
    ]


def test_tsv_never_quotes(tmp_path: Path) -> None:
    path = file(tmp_path, "a.tsv", 'text\tlabel\n"open\t0\r\nd, e\t1')
    assert list(read_table(path)) == [
        (2, {"text": '"open', "label": "0"}),
        (3, {"text": "d, e", "label": "1"}),
    ]


def test_json_lines(tmp_path: Path) -> None:
    path = file(tmp_path, "a.jsonl", '{"text": "a\\nb", "label": 1, "idx": null}\n{"text": "c", "label": "pos"}\n')
    assert list(read_table(path)) == [
        (1, {"text": "a\nb", "label": "1"}),
        (2, {"text": "c", "label": "pos"}),
    ]
    assert column_names(path) == ("text", "label")


def test_column_names(tmp_path: Path) -> None:
    assert column_names(file(tmp_path, "a.csv", '"text", label\nx,0\n')) == ("text", "label")
    assert column_names(file(tmp_path, "a.tsv", "index\tsentence\n")) == ("index", "sentence")


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.csv", "text,label\nx,0\ny\n", r"2 columns, as on line 1; got .*a\.csv line 3: 1 columns"),
        ("a.csv", "text,label\nx, y,0\n", r"a\.csv line 2: 3 columns"),
        ("a.csv", 'text,label\nx,0\n"cut short', r"well-formed CSV.*a\.csv line 3"),
        ("a.csv", "text,label\n", r"a\.csv: none"),
        ("a.tsv", "text\tlabel\nx\t0\ny\n", r"a\.tsv line 3: 1 columns"),
        ("a.tsv", "text\tlabel", r"a\.tsv: none"),
        ("a.jsonl", '{"text": "x", "label": 0}\n{"text": "y", "la', r"a\.jsonl line 2: .* at column"),
        ("a.jsonl", "[1]\n", r"a\.jsonl line 1: a list"),
        ("a.txt", "x\n", r"\.csv, \.tsv or \.jsonl"),
    ],
)
def test_malformed_tables_are_refused_by_file_and_line(tmp_path: Path, name: str, content: str, why: str) -> None:
    with pytest.raises(Refusal, match=why):
        list(read_table(file(tmp_path, name, content)))


def test_a_cell_longer_than_the_csv_modules_limit_is_read_and_the_limit_stays(tmp_path: Path) -> None:
    """Kills: "cut short or badly quoted" for a long text; a limit that is moved for the whole process."""
    before = csv.field_size_limit()
    assert before == 131_072
    for length in (before, before + 1, 3 * before):
        path = file(tmp_path, "a.csv", f'text,label\n"{"x" * length}",0\nd,1\n')
        assert [len(row["text"]) for _, row in read_table(path)] == [length, 1]
        assert csv.field_size_limit() == before
    broken = file(tmp_path, "a.csv", f'text,label\nx,0\n"{"x" * 3 * before}')
    with pytest.raises(Refusal, match=r"well-formed CSV; got .*a\.csv line 3"):
        list(read_table(broken))
    assert csv.field_size_limit() == before


def test_all_that_is_wrong_with_a_file_is_refused_at_once(tmp_path: Path) -> None:
    path = file(tmp_path, "a.csv", "text,label\nx\ny,0\nz,1,2\nw,0\n")
    with pytest.raises(Refusal, match=r"a\.csv line 2: 1 columns; line 4: 3 columns\. The file"):
        list(read_table(path))
    path = file(tmp_path, "a.tsv", "text\tlabel\n" + "x\n\n" * 15 + "y\t0\n")
    with pytest.raises(
        Refusal, match=r"line 2: 1 columns; line 3: an empty line; .*line 21: an empty line; and 10 more"
    ):
        list(read_table(path))
    path = file(tmp_path, "a.jsonl", '{"text": \n[1]\n{"text": "x", "label": 0}\n3\n')
    with pytest.raises(Refusal, match=r"line 1: Expecting value at column 10; line 2: a list; line 4: a int\."):
        list(read_table(path))
    path = file(tmp_path, "a.txt", b"x\ncaf\xe9\ny\n\xff\n")
    with pytest.raises(Refusal, match=r"a\.txt line 2: something else at byte 4; line 4: something else at byte 1\."):
        read_text(path)
