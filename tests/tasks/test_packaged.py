import csv
from pathlib import Path

import pytest

from dpzo.errors import Refusal
from dpzo.tasks import TASKS, load_examples
from dpzo.tasks.packaged import find_packaged

MR = TASKS["mr"]


def reviews(path: Path, n: int, header: tuple[str, ...] = ("text", "label", "source")) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(header)
        rows.writerow(("a long one,\nwith two lines", 1, "imdb"))
        rows.writerows((f'"sentence" {i}, {{text}}', i % 2, "rotten_tomatoes") for i in range(n))
    return path


def test_the_rotten_tomatoes_rows_are_cut_in_three(tmp_path: Path) -> None:
    path = reviews(tmp_path / "r.csv", 2100)
    parts = {split: find_packaged(MR, split, path).read() for split in ("train", "validation", "test")}
    assert {split: len(part) for split, part in parts.items()} == {"train": 70, "validation": 530, "test": 1500}
    everything = {example for part in parts.values() for example in part}
    assert {e.texts[0] for e in everything} == {f'"sentence" {i}, {{text}}' for i in range(2100)}
    assert all(int(e.texts[0].split()[1].rstrip(",")) % 2 == e.label for e in everything)
    assert parts["test"] == load_examples(MR, "test", packaged=path)


def test_the_held_out_rows_are_pinned(tmp_path: Path) -> None:
    test = load_examples(MR, "test", packaged=reviews(tmp_path / "r.csv", 2100))
    assert [e.texts[0].split()[1] for e in test[:3]] == ["1157,", "1836,", "1220,"]


def test_str_names_the_rows_and_no_path(tmp_path: Path) -> None:
    source = find_packaged(MR, "test", tmp_path / "r.csv")
    assert str(source) == "test part of the rotten_tomatoes rows of r.csv"


def test_other_tasks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="the task mr for the packaged data; got 'sst2'"):
        find_packaged(TASKS["sst2"], "test", tmp_path / "r.csv")


def test_bad_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"no\.csv: No such file"):
        load_examples(MR, "test", packaged=tmp_path / "no.csv")
    with pytest.raises(Refusal, match=r"columns text, label, source; got .*line 1: 3 columns, of them text, label"):
        load_examples(MR, "test", packaged=reviews(tmp_path / "a.csv", 3, ("text", "label", "origin")))
    with pytest.raises(Refusal, match="more than 2030 rows"):
        load_examples(MR, "test", packaged=reviews(tmp_path / "b.csv", 2030))
    whole = reviews(tmp_path / "c.csv", 2100)
    whole.write_text(whole.read_text()[:-30], newline="")
    with pytest.raises(Refusal, match=r"c\.csv line 2103"):
        load_examples(MR, "test", packaged=whole)
    whole.write_text("text,label,source\nx,2,rotten_tomatoes\n")
    with pytest.raises(Refusal, match=r"c\.csv line 2: another"):
        load_examples(MR, "test", packaged=whole)
