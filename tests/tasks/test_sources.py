from pathlib import Path
from typing import Any

import pytest

from dpzo.errors import Refusal
from dpzo.tasks import TASKS, Example, find_source, say_repeated
from dpzo.tasks.folder import FolderSource
from dpzo.tasks.hub import HubSource
from dpzo.tasks.packaged import PackagedSource

MR = TASKS["mr"]


def test_the_place_is_the_folder_then_the_packaged_file_then_the_hub(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\na,0\nb,1\n")
    assert isinstance(find_source(MR, "train", data_dir=tmp_path), FolderSource)
    assert isinstance(find_source(MR, "train", packaged=tmp_path / "r.csv"), PackagedSource)
    assert isinstance(find_source(MR, "train"), HubSource)


def test_no_place_two_places_and_an_unknown_split_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"a place for the data of MR.*none.*--data-dir"):
        find_source(MR, "train", hub=False)
    with pytest.raises(Refusal, match="one place for the data"):
        find_source(MR, "train", data_dir=tmp_path, packaged=tmp_path / "r.csv")
    unknown: Any = "dev"
    with pytest.raises(Refusal, match="a split out of train, validation, test; got 'dev'"):
        find_source(MR, unknown)


def test_what_is_there_more_than_once_is_counted_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Kills: a count of pairs; of equal labels alone; silence about test texts that were trained on."""
    train = [Example((text,), label) for text, label in (("a", 0), ("b", 1), ("a", 0), ("a", 1), ("c", 0), ("c", 0))]
    test = [Example((text,), label) for text, label in (("c", 1), ("d", 0), ("a", 0))]
    told = say_repeated({"train": train, "test": test, "validation": [Example(("e",), 0)]})
    assert told == [
        "train: 3 of 6 records repeat the text of another, 1 with different labels",
        "test: 2 of 3 records have a text that is in train too",
    ]
    assert capsys.readouterr() == ("", "".join(f"dpzo: {line}\n" for line in told))
    assert say_repeated({"train": train[:2], "test": test[1:2]}) == []
    assert capsys.readouterr() == ("", "")
