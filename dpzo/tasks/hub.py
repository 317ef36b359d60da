"""The tasks' data sets on the Hugging Face hub, read through ``datasets``; parquet or JSON, never a script."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dpzo.errors import Refusal, content
from dpzo.tasks.lines import named
from dpzo.tasks.packaged import packaged_data
from dpzo.tasks.prompt import Example
from dpzo.tasks.splits import Split, complete
from dpzo.tasks.task import Task


@dataclass(frozen=True)
class Repository:
    """A data set on the hub at a fixed revision, its columns, and its splits.

    ``labels`` names the task's labels in the hub's integer order; ``names`` are the hub's own words for these
    where they differ. No validation split means that validation is carved from train.
    """

    path: str
    config: str | None
    revision: str | None
    texts: tuple[str, ...]
    labels: tuple[str, ...]
    names: tuple[str, ...] = ()
    label: str = "label"
    splits: tuple[tuple[Split, str], ...] = (
        ("train", "train"),
        ("validation", "validation"),
        ("test", "test"),
    )


_GLUE, _GLUE_REVISION = "nyu-mll/glue", "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"
# GLUE hides its test labels: as in the papers, its validation split is the test set.
_GLUE_SPLITS: tuple[tuple[Split, str], ...] = (("train", "train"), ("test", "validation"))
_NLI = ("entailment", "neutral", "contradiction")

REPOSITORIES: Mapping[str, Repository] = {
    "sst2": Repository(_GLUE, "sst2", _GLUE_REVISION, ("sentence",), ("negative", "positive"), splits=_GLUE_SPLITS),
    "rte": Repository(
        _GLUE,
        "rte",
        _GLUE_REVISION,
        ("sentence1", "sentence2"),
        ("entailment", "not_entailment"),
        splits=_GLUE_SPLITS,
    ),
    "mnli": Repository(
        _GLUE,
        "mnli",
        _GLUE_REVISION,
        ("premise", "hypothesis"),
        _NLI,
        splits=(("train", "train"), ("test", "validation_matched")),
    ),
    "snli": Repository(
        "stanfordnlp/snli",
        "plain_text",
        "cdb5c3d5eed6ead6e5a341c8e56e669bb666725b",
        ("premise", "hypothesis"),
        _NLI,
    ),
    "sst5": Repository(
        "SetFit/sst5",
        None,
        "e51bdcd8cd3a30da231967c1a249ba59361279a3",
        ("text",),
        ("very negative", "negative", "neutral", "positive", "very positive"),
    ),
    "mr": Repository(
        "cornell-movie-review-data/rotten_tomatoes",
        None,
        "aa13bc287fa6fcab6daf52f0dfb9994269ffea28",
        ("text",),
        ("negative", "positive"),
        names=("neg", "pos"),
    ),
    # Its main branch is a loading script, which datasets 4 and later refuse; the hub keeps this parquet copy.
    "trec": Repository(
        "CogComp/trec",
        None,
        "refs/convert/parquet",
        ("text",),
        ("ABBR", "ENTY", "DESC", "HUM", "LOC", "NUM"),
        label="coarse_label",
        splits=(("train", "train"), ("test", "test")),
    ),
}


@dataclass(frozen=True)
class HubSource:
    """One split of a task out of a repository of the hub, or of a local copy of it; ``str()`` says which."""

    task: Task
    split: Split
    repository: Repository

    def __str__(self) -> str:
        there = self.repository
        at = f" at {there.revision}" if there.revision else ""
        carved = "" if self.split == "test" or self._has_validation else ", validation carved from train"
        return f"{self.split} of {there.path}{f' ({there.config})' if there.config else ''}{at}{carved}"

    @property
    def _has_validation(self) -> bool:
        return "validation" in dict(self.repository.splits)

    def read(self) -> tuple[Example, ...]:
        """The examples in the repository's order.

        Rows without a gold label (-1) or with an empty text are dropped: nobody can mend a fixed revision.

        Raises a Refusal if the hub cannot be reached or the columns or labels are not the expected ones.
        """
        splits = dict(self.repository.splits)
        rows = self._load(splits.get(self.split, splits["train"]))
        examples = tuple(self._examples(rows))
        return complete(self.split, self._has_validation, examples, self.repository.path)

    def _load(self, split: str) -> Any:
        # Imported here: it takes seconds, and the other sources do without it.
        import datasets

        there = self.repository
        try:
            with _silent():
                # No `trust_remote_code`: since its fourth version the library runs no code of a data set.
                return datasets.load_dataset(there.path, there.config, split=split, revision=there.revision)
        # No network, offline mode, a missing cache, a removed repository and a changed one are all of these.
        except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
            told = str(error).strip().partition("\n")[0]
            # A parser's message quotes the row that it could not read.
            absent = OSError, datasets.exceptions.DatasetNotFoundError, datasets.exceptions.DataFilesNotFoundError
            came = type(error).__name__ + (f": {told}" if isinstance(error, absent) else content(told))
        raise Refusal(
            f"{there.path} on the Hugging Face hub, or in its local cache",
            came,
            f"Go online, or give --data-dir with files of {self.task.title}, or use {packaged_data(self.task)}.",
        )

    def _examples(self, rows: Any) -> Iterator[Example]:
        there = self.repository
        missing = {*there.texts, there.label} - set(rows.column_names)
        if missing:
            raise Refusal(
                f"columns {', '.join((*there.texts, there.label))} in {there.path}",
                named(tuple(rows.column_names), (*there.texts, there.label)),
                "The data set is not the one known here: give --data-dir.",
            )
        names = getattr(rows.features[there.label], "names", None)
        if names is not None and tuple(names) != (there.names or there.labels):
            raise Refusal(
                f"labels {', '.join(there.names or there.labels)} in {there.path}",
                f"{len(names)} others{content(', '.join(names))}",
                "The data set is not the one known here: give --data-dir.",
            )
        columns = [rows[column] for column in (there.label, *there.texts)]
        for label, *texts in zip(*columns, strict=True):
            if not all(isinstance(text, str | None) for text in texts):
                raise Refusal(f"texts in {there.path}", "something else", "The data set is not the one known here.")
            stripped = tuple((text or "").strip() for text in texts)
            if label == -1 or not all(stripped):
                continue
            if label not in range(len(there.labels)):
                raise Refusal(
                    f"labels 0..{len(there.labels) - 1} in {there.path}",
                    f"another{content(label)}",
                    "The data set is not the one known here: give --data-dir.",
                )
            yield Example(stripped, self.task.labels.index(there.labels[label]))


@contextmanager
def _silent() -> Iterator[None]:
    # The library logs what it cannot parse, rows and all.
    from datasets.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def find_on_hub(task: Task, split: Split, local_copy: Path | None = None) -> HubSource:
    """The task's split on the hub, or in a local folder with the same files (parquet, JSON or CSV).

    Raises a Refusal for a task that the hub is not known to hold.
    """
    if task.name not in REPOSITORIES or not set(REPOSITORIES[task.name].labels) <= set(task.labels):
        raise Refusal(f"a task with a known data set: {', '.join(REPOSITORIES)}", repr(task.name), "Give --data-dir.")
    there = REPOSITORIES[task.name]
    if local_copy is not None:
        there = replace(there, path=str(local_copy), config=None, revision=None)
    return HubSource(task, split, there)
