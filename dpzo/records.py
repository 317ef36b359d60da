"""Records in any form: how many there are, which are picked, what their public shape is, and made-up ones of it.

A form is a tensor, an array, or a list of one entry a record; a mapping or tuple of these, one for each field; or
anything else with a length that arrays of indices pick from.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dpzo.types import Indices, Records


def size_of(records: Records) -> int:
    """Return the number of records."""
    if isinstance(records, Mapping):
        records = tuple(records.values())
    return size_of(records[0]) if isinstance(records, tuple) else len(records)


def pick(records: Records, rows: Indices) -> Records:
    """Return the records of these numbers, in this order."""
    if isinstance(records, Mapping | tuple):
        return _each_field(records, lambda field, number: pick(field, rows))
    if type(records) is list:
        return [records[row] for row in rows.tolist()]
    if isinstance(records, Tensor):
        return records[torch.from_numpy(rows).to(records.device)]
    picked = records[rows]
    if isinstance(picked, np.ndarray) and picked.dtype.kind in "fiub":
        # torch's memory begins at multiples of 64 bytes, numpy's anywhere, and kernels sum by alignment too.
        return torch.from_numpy(picked).clone().numpy()
    return picked


def shape_of(records: Records) -> object:
    """Return what of records is public: their form, and of each field the type and what shape a record has."""
    if isinstance(records, Mapping):
        return tuple((name, shape_of(field)) for name, field in records.items())
    if isinstance(records, tuple):
        return tuple(map(shape_of, records))
    return (str(records.dtype), tuple(records.shape[1:])) if isinstance(records, Tensor | np.ndarray) else type(records)


def made_up(like: Records, rows: Sequence[int], least: int = 0, spread: float = 1.0) -> Records:
    """Return public records in the form of ``like``; of its values it takes none, and each is told by its number.

    Numbers lie around 1/2, within ``spread``, whole numbers are ``least`` or the next one; they differ from record to
    record and from field to field, and so do the lengths of lists where ``spread`` is above 1. What is in another form
    may have a method ``made_up(rows)`` of its own.

    Raises:
        TypeError: records in a form that cannot be made up here.
    """
    return _made_up(like, rows, (least, spread), 0)


def _made_up(like: Records, rows: Sequence[int], law: tuple[int, float], field: int) -> Records:
    if isinstance(like, Mapping | tuple):
        return _each_field(like, lambda part, number: _made_up(part, rows, law, 8 * field + number + 1))
    if isinstance(like, np.ndarray):
        return _made_up(torch.from_numpy(like[:1]), rows, law, field).numpy()
    if isinstance(like, Tensor):
        return _filled(like[:1], rows, law, field)
    if type(like) is list and len(like):
        return [_entry(like[0], row, law, field) for row in rows]
    if hasattr(like, "made_up"):
        return like.made_up(rows)
    raise TypeError(type(like).__name__)


def _entry(like: Any, row: int, law: tuple[int, float], field: int) -> Any:
    # Of a list, as libraries of data sets hand out: numbers, and lists of numbers, of one length or of several.
    if isinstance(like, Tensor):
        return _filled(like[None], [row], law, field)[0]
    if isinstance(like, list):
        first, length = like[0] if like else 0, len(like) if law[1] <= 1 else 2 + row % 3
        return [_entry(first, 5 * row + place, law, field) for place in range(length)]
    if isinstance(like, bool | int | float):
        return type(like)(_filled(torch.tensor([like]), [row], law, field).item())
    raise TypeError(type(like).__name__)


def _filled(like: Tensor, rows: Sequence[int], law: tuple[int, float], field: int) -> Tensor:
    # A hash of (number, place, field) to [0, 1): far from any pattern, and the same everywhere.
    place = torch.arange(like.numel(), dtype=torch.int64)
    number = torch.tensor(rows, dtype=torch.int64)[:, None]
    word = (number * 0x9E3779B1 + place * 0x85EBCA6B + (field + 1) * 0xC2B2AE35) & 0xFFFFFFFF
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):  # a known integer hash; products stay below 2**63
        word = ((word ^ (word >> shift)) * (factor & 0x7FFFFFFF)) & 0xFFFFFFFF
    word, (least, spread) = word ^ (word >> 16), law
    if like.is_floating_point():
        return (0.5 + spread * ((word.double() + 0.5) * 2.0**-32 - 0.5)).to(like).view(len(rows), *like.shape[1:])
    # A single whole number is perhaps a label: no four of them are alike.
    whole = number >> field % 2 if like.numel() == 1 else word >> 31
    return ((whole & 1) + (0 if like.dtype == torch.bool else least)).to(like).view(len(rows), *like.shape[1:])


def _each_field(records: Any, change: Callable[[Any, int], Any]) -> Any:
    if isinstance(records, Mapping):
        fields = {name: change(field, number) for number, (name, field) in enumerate(records.items())}
        return fields if isinstance(records, dict) else type(records)(fields)  # type: ignore[call-arg]
    parts = [change(field, number) for number, field in enumerate(records)]
    return type(records)(*parts) if hasattr(records, "_fields") else tuple(parts)
