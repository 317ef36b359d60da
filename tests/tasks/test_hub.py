import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest

from dpzo.errors import Refusal
from dpzo.tasks import TASKS, Example, Prompt, Task, load_examples
from dpzo.tasks.hub import REPOSITORIES, find_on_hub

SST2, SST5, SNLI, TREC, MR, RTE, MNLI = (TASKS[n] for n in ("sst2", "sst5", "snli", "trec", "mr", "rte", "mnli"))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def parquet(path: Path, rows: dict[str, list[Any]], **names: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = datasets.Dataset.from_dict(rows)
    for column, labels in names.items():
        data = data.cast_column(column, datasets.ClassLabel(names=labels))
    data.to_parquet(str(path))


def test_glue_columns_with_the_validation_split_as_test(tmp_path: Path) -> None:
    there = tmp_path / "glue"
    names = ["negative", "positive"]
    for split, n in (("train", 1300), ("validation", 4)):
        rows: dict[str, list[Any]] = {
            "sentence": [f"{split} {i} " for i in range(n)],
            "label": [i % 2 for i in range(n)],
            "idx": [0] * n,
        }
        parquet(there / f"{split}-00000-of-00001.parquet", rows, label=names)
    parquet(there / "test-00000-of-00001.parquet", {"sentence": ["x"], "label": [-1], "idx": [0]}, label=names)
    assert find_on_hub(SST2, "test", there).read() == tuple(Example((f"validation {i}",), i % 2) for i in range(4))
    train, validation = (find_on_hub(SST2, split, there).read() for split in ("train", "validation"))
    assert (len(train), len(validation)) == (1170, 130)
    assert not set(train) & set(validation)


def test_pairs_drop_rows_without_gold_label_or_text(tmp_path: Path) -> None:
    rows: dict[str, list[Any]] = {
        "premise": ["a", "b", "c", "", None, "f "],
        "hypothesis": ["h"] * 6,
        "label": [2, -1, 0, 1, 1, 1],
    }
    for split in ("train", "validation", "test"):
        parquet(tmp_path / "snli" / f"{split}.parquet", rows, label=["entailment", "neutral", "contradiction"])
    assert find_on_hub(SNLI, "test", tmp_path / "snli").read() == (
        Example(("a", "h"), 2),
        Example(("c", "h"), 0),
        Example(("f", "h"), 1),
    )


def test_trecs_parquet_branch_is_numbered_otherwise(tmp_path: Path) -> None:
    names = ["ABBR", "ENTY", "DESC", "HUM", "LOC", "NUM"]
    rows: dict[str, list[Any]] = {
        "text": [f"{n} ?" for n in names],
        "coarse_label": list(range(6)),
        "fine_label": [0] * 6,
    }
    for split in ("train", "test"):
        parquet(tmp_path / "trec" / "default" / split / "0000.parquet", rows, coarse_label=names)
    read = find_on_hub(TREC, "test", tmp_path / "trec").read()
    assert [TREC.labels[e.label] + " ?" for e in read] == [e.texts[0] for e in read]
    assert [e.label for e in read] == [2, 1, 0, 3, 4, 5]


def test_rotten_tomatoes_under_its_own_label_names(tmp_path: Path) -> None:
    for split in ("train", "validation", "test"):
        parquet(tmp_path / "rt" / f"{split}.parquet", {"text": [split, "b"], "label": [1, 0]}, label=["neg", "pos"])
    assert find_on_hub(MR, "validation", tmp_path / "rt").read() == (
        Example(("validation",), 1),
        Example(("b",), 0),
    )


def test_json_lines_with_bare_integers(tmp_path: Path) -> None:
    for name in ("train", "dev", "test"):
        path = tmp_path / "sst5" / f"{name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f'{{"text": "{name}", "label": {i}, "label_text": "x"}}\n' for i in range(5)))
    read = find_on_hub(SST5, "validation", tmp_path / "sst5").read()
    assert read == tuple(Example(("dev",), i) for i in range(5))


@pytest.mark.parametrize(
    ("rows", "names", "why"),
    [
        ({"body": ["a"], "label": [0]}, {}, r"columns text, label in .*got 2 columns, of them label"),
        ({"text": ["a"], "label": [0]}, {"label": ["pos", "neg"]}, r"labels neg, pos in .*got 2 others"),
        ({"text": ["a"], "label": [2]}, {}, r"labels 0\.\.1 in .*got another"),
    ],
)
def test_a_changed_data_set_is_refused(tmp_path: Path, rows: Any, names: Any, why: str) -> None:
    for split in ("train", "validation", "test"):
        parquet(tmp_path / "rt" / f"{split}.parquet", rows, **names)
    with pytest.raises(Refusal, match=why):
        find_on_hub(MR, "test", tmp_path / "rt").read()


def test_a_missing_split_or_a_broken_file_is_refused(tmp_path: Path) -> None:
    parquet(tmp_path / "rt" / "train.parquet", {"text": ["a"], "label": [0]})
    with pytest.raises(Refusal, match=r"on the Hugging Face hub.*--data-dir"):
        find_on_hub(MR, "test", tmp_path / "rt").read()
    (tmp_path / "rt" / "test.parquet").write_bytes(b"no parquet")
    with pytest.raises(Refusal, match=r"on the Hugging Face hub.*--data-dir"):
        find_on_hub(MR, "test", tmp_path / "rt").read()


@pytest.mark.parametrize(
    "error",
    [ConnectionError("no route\nmore"), FileNotFoundError("gone"), ValueError("no cache"), RuntimeError("a script")],
)
def test_whatever_keeps_the_hub_away_is_one_refusal_with_the_ways_out(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(Refusal) as refused:
        load_examples(RTE, "test")
    message = str(refused.value)
    assert "nyu-mll/glue on the Hugging Face hub" in message
    assert type(error).__name__ in message
    assert "--data-dir with files of RTE" in message
    assert "packaged default task mr" in message
    assert "\n" not in message


def test_the_hub_is_asked_for_repository_config_split_and_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []

    def record(path: str, config: str | None, *, split: str, revision: str | None) -> None:
        asked.append((path, config, split, revision))
        raise ConnectionError

    monkeypatch.setattr(datasets, "load_dataset", record)
    for task in (MNLI, TREC):
        with pytest.raises(Refusal):
            load_examples(task, "test")
    assert asked == [
        ("nyu-mll/glue", "mnli", "validation_matched", "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"),
        ("CogComp/trec", None, "test", "refs/convert/parquet"),
    ]


def test_the_real_library_offline(tmp_path: Path) -> None:
    # In another process: the library reads HF_HUB_OFFLINE when it is imported.
    code = (
        "from dpzo.errors import Refusal; from dpzo.tasks import get_task, load_examples\n"
        "try: load_examples(get_task('sst2'), 'test')\n"
        "except Refusal as refusal: print('REFUSED', refusal)"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("REFUSED expected nyu-mll/glue on the Hugging Face hub")


def test_a_task_that_the_hub_does_not_hold_is_refused() -> None:
    words = Prompt("{text} So", (" a", " b"))
    for name in ("mine", "sst2"):
        own = Task(name, "Mine", ("a", "b"), Prompt("{text} So{mask}", (" a", " b")), {"ours": words}, 64)
        with pytest.raises(Refusal, match=r"a task with a known data set: .*Give --data-dir"):
            find_on_hub(own, "train")


def test_every_task_has_a_repository_with_its_labels_and_texts() -> None:
    assert set(REPOSITORIES) == set(TASKS)
    for name, there in REPOSITORIES.items():
        assert sorted(there.labels) == sorted(TASKS[name].labels)
        assert len(there.texts) == TASKS[name].n_texts
        assert there.revision is not None
        assert {"train", "test"} <= set(dict(there.splits))


def test_str_names_repository_and_revision() -> None:
    assert str(find_on_hub(SST2, "train")) == (
        "train of nyu-mll/glue (sst2) at bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c, validation carved from train"
    )
