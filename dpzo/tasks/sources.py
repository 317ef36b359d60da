"""Where a task's records come from: a folder, the packaged movie reviews, or the Hugging Face hub."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Protocol

from dpzo.errors import Refusal
from dpzo.tasks.folder import find_in_folder
from dpzo.tasks.hub import find_on_hub
from dpzo.tasks.packaged import find_packaged, packaged_data
from dpzo.tasks.prompt import Example
from dpzo.tasks.splits import SPLITS, Split, say
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
    data_dir: str | Path | None = None,
    packaged: str | Path | None = None,
    hub: bool = True,
    cut_test: bool = False,
    allow_absent: bool = False,
) -> Source:
    """The place of a split: ``data_dir`` if given, else the file ``packaged`` if given, else the hub if allowed.

    No row of a source is in two of its splits. The test set is the one that the papers use where the source
    holds it (SST-2: the 872 dev sentences), and always the same whole set: see ``subsample``. For ``cut_test`` and
    ``allow_absent``, which are of ``data_dir``, see ``find_in_folder``.

    Raises a Refusal for an unknown split, for two places at once, for none, and if the place lacks the split.
    """
    if split not in SPLITS:
        raise Refusal(f"a split out of {', '.join(SPLITS)}", repr(split), "Choose one of these.")
    if data_dir is not None and packaged is not None:
        raise Refusal("one place for the data", f"{data_dir} and {packaged}", "Give one of the two.")
    if data_dir is not None:
        return find_in_folder(task, split, Path(data_dir), cut_test=cut_test, allow_absent=allow_absent)
    if packaged is not None:
        return find_packaged(task, split, Path(packaged))
    if hub:
        return find_on_hub(task, split)
    raise Refusal(
        f"a place for the data of {task.title}",
        "none",
        f"Give --data-dir, allow the Hugging Face hub, or use {packaged_data(task)}.",
    )


def load_examples(
    task: Task,
    split: Split,
    *,
    data_dir: str | Path | None = None,
    packaged: str | Path | None = None,
    hub: bool = True,
    cut_test: bool = False,
    allow_absent: bool = False,
) -> tuple[Example, ...]:
    """All examples of a split from the place that ``find_source`` names; see there.

    A split that was cut from another is told on stderr, by its size.

    Raises a Refusal that names the file and lines, or the repository, of bad input.
    """
    options = {"cut_test": cut_test, "allow_absent": allow_absent}
    return find_source(task, split, data_dir=data_dir, packaged=packaged, hub=hub, **options).read()


def say_repeated(splits: Mapping[Split, Sequence[Example]]) -> list[str]:
    """Tell the owner of the data, on stderr, what is in it more than once; return the lines.

    A text that is there twice is protected half as well as the statement of a run says of one record. A test text that
    was trained on makes the accuracy too high.
    """
    told = []
    for split, examples in splits.items():
        labels = defaultdict(list)
        for example in examples:
            labels[example.texts].append(example.label)
        if again := len(examples) - len(labels):
            differ = sum(len(set(several)) > 1 for several in labels.values())
            mixed = f", {differ:,} with different labels" if differ else ""
            told.append(f"{split}: {again:,} of {len(examples):,} records repeat the text of another{mixed}")
    for one, other in combinations(splits, 2):
        known = {example.texts for example in splits[one]}
        if shared := sum(example.texts in known for example in splits[other]):
            told.append(f"{other}: {shared:,} of {len(splits[other]):,} records have a text that is in {one} too")
    for line in told:
        say(line)
    return told
