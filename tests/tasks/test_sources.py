from pathlib import Path
from typing import Any

import pytest

from dpzo.errors import Refusal
from dpzo.tasks import TASKS, find_source
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
