"""Splits that a source does not have, cut from one that it has: fixed, seeded, the same on every machine."""

import sys
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


def cut_a_tenth(examples: Sequence[Example], where: str) -> Mapping[Split, tuple[Example, ...]]:
    """Train, validation and test out of a training set alone, for who asks.

    In the order of seed 42 the first tenth of every class, one record at least, is the test set, the next tenth the
    validation set. A Refusal, naming ``where``, if a class would have nothing left.
    """
    size = Counter(example.label for example in examples)
    if few := min((n for n in size.values() if n < 3), default=0):
        raise Refusal(f"3 rows of every label, to cut {where}", f"a label with {few}", "Add a test file.")
    parts: dict[Split, list[Example]] = {"test": [], "validation": [], "train": []}
    seen: Counter[int] = Counter()
    for i in seeded_order(len(examples), SPLIT_SEED):
        label, tenth = examples[i].label, max(1, size[examples[i].label] // _SHARE)
        split: Split = "test" if seen[label] < tenth else "validation" if seen[label] < 2 * tenth else "train"
        parts[split].append(examples[i])
        seen[label] += 1
    told = ", ".join(f"{len(part):,} {split}" for split, part in parts.items())
    say(f"no test rows: the {len(examples):,} training rows in {where} are cut into {told}")
    return {split: tuple(part) for split, part in parts.items()}


def say(line: str) -> None:
    """Tell the owner of the data something about it that is a count."""
    print(f"dpzo: {line}", file=sys.stderr, flush=True)


def complete(split: Split, has_validation: bool, examples: Sequence[Example], where: str) -> tuple[Example, ...]:
    """The split of a source that may lack validation rows; these are then carved from the training rows.

    ``examples`` are the rows of the split, or the training rows if validation is asked of a source without it.
    A Refusal, naming ``where``, if the classes are too small to carve from.
    """
    if split == "test" or has_validation:
        return tuple(examples)
    carved = carve_validation(examples)
    part, held = carved[split], len(carved["validation"])
    if held:
        say(f"no validation rows: {held:,} of the {len(examples):,} training rows in {where} serve as them")
    if not part:
        raise Refusal(
            f"validation rows, or a class of {_LARGE_CLASS} training rows to carve them from",
            f"{len(examples)} training rows in {where}",
            "Give a validation file.",
        )
    return part
