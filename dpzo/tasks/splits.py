"""Splits that a source does not have, cut from one that it has: fixed, seeded, the same on every machine."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from dpzo.errors import Refusal
from dpzo.tasks.kshot import seeded_order
from dpzo.tasks.prompt import Example

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

SPLIT_SEED = 42
_TEST_ROWS, _VALIDATION_ROWS = 1500, 530
# A class gives up a tenth only if the papers' 512 remain: so k = 512 still finds all 86 of TREC's ABBR.
_LARGE_CLASS, _SHARE = 600, 10


def carve_validation(examples: Sequence[Example]) -> Mapping[Split, tuple[Example, ...]]:
    """Training and validation sets out of a training set alone.

    Validation gets the first tenth, in the order of seed 42, of every class of 600 records or more; train gets
    the rest. Both keep the source's order. Where all classes are smaller, validation is empty.
    """
    size = Counter(example.label for example in examples)
    quota = {label: n // _SHARE if n >= _LARGE_CLASS else 0 for label, n in size.items()}
    held: set[int] = set()
    for i in seeded_order(len(examples), SPLIT_SEED):
        if quota[examples[i].label] > 0:
            quota[examples[i].label] -= 1
            held.add(i)
    return {
        "train": tuple(example for i, example in enumerate(examples) if i not in held),
        "validation": tuple(examples[i] for i in sorted(held)),
    }


def cut_in_three(examples: Sequence[Example], where: str) -> Mapping[Split, tuple[Example, ...]]:
    """Train, validation and test out of a source without splits.

    In the order of seed 42: the first 1500 records are the test set, the next 530 the validation set, the rest
    the training set (6500 of the packaged movie reviews). A Refusal, naming ``where``, if nothing would be left.
    """
    held = _TEST_ROWS + _VALIDATION_ROWS
    if len(examples) <= held:
        raise Refusal(
            f"more than {held} rows ({_TEST_ROWS} test, {_VALIDATION_ROWS} validation, the rest train)",
            f"{len(examples)} rows in {where}",
            "Give the whole file, or a folder with train, validation and test files.",
        )
    cut = [examples[i] for i in seeded_order(len(examples), SPLIT_SEED)]
    return {
        "test": tuple(cut[:_TEST_ROWS]),
        "validation": tuple(cut[_TEST_ROWS:held]),
        "train": tuple(cut[held:]),
    }


def complete(split: Split, has_validation: bool, examples: Sequence[Example], where: str) -> tuple[Example, ...]:
    """The split of a source that may lack validation rows; these are then carved from the training rows.

    ``examples`` are the rows of the split, or the training rows if validation is asked of a source without it.
    A Refusal, naming ``where``, if the classes are too small to carve from.
    """
    if split == "test" or has_validation:
        return tuple(examples)
    part = carve_validation(examples)[split]
    if not part:
        raise Refusal(
            f"validation rows, or a class of {_LARGE_CLASS} training rows to carve them from",
            f"{len(examples)} training rows in {where}",
            "Give a validation file.",
        )
    return part
