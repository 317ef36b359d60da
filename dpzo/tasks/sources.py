"""Where a task's records come from: a folder, the packaged movie reviews, or the Hugging Face hub."""

from pathlib import Path
from typing import Protocol

from dpzo.errors import Refusal
from dpzo.tasks.folder import find_in_folder
from dpzo.tasks.hub import find_on_hub
from dpzo.tasks.packaged import find_packaged
from dpzo.tasks.prompt import Example
from dpzo.tasks.splits import SPLITS, Split
from dpzo.tasks.task import Task


class Source(Protocol):
    """One split of one task at one place; ``str()`` of it is a line for a report."""

    def read(self) -> tuple[Example, ...]:
        """All its examples; a Refusal for bad input."""
        ...


def find_source(
    task: Task,
    split: Split,
    *,
    data_dir: Path | None = None,
    packaged: Path | None = None,
    hub: bool = True,
) -> Source:
    """The place of a split: ``data_dir`` if given, else the file ``packaged`` if given, else the hub if allowed.

    No row of a source is in two of its splits. The test set is the one that the papers use where the source
    holds it (SST-2: the 872 dev sentences), and always the same whole set: see ``subsample``.

    Raises a Refusal for an unknown split, for two places at once, for none, and if the place lacks the split.
    """
    if split not in SPLITS:
        raise Refusal(f"a split out of {', '.join(SPLITS)}", repr(split), "Choose one of these.")
    if data_dir is not None and packaged is not None:
        raise Refusal("one place for the data", f"{data_dir} and {packaged}", "Give one of the two.")
    if data_dir is not None:
        return find_in_folder(task, split, data_dir)
    if packaged is not None:
        return find_packaged(task, split, packaged)
    if hub:
        return find_on_hub(task, split)
    raise Refusal(
        f"a place for the data of {task.title}",
        "none",
        "Give --data-dir, allow the Hugging Face hub, or use the packaged default task mr.",
    )


def load_examples(
    task: Task,
    split: Split,
    *,
    data_dir: Path | None = None,
    packaged: Path | None = None,
    hub: bool = True,
) -> tuple[Example, ...]:
    """All examples of a split from the place that ``find_source`` names; see there.

    Raises a Refusal that names the file and line, or the repository, of bad input.
    """
    return find_source(task, split, data_dir=data_dir, packaged=packaged, hub=hub).read()
