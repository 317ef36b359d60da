"""Fixed physical shapes, so that a record's loss is its own, bit for bit.

A kernel chooses how it sums by the shape that it is given, and some by where in the batch a row stands: the same
record then gets another last bit beside other mates, and a finite difference magnifies it by 1 / (2 lambda). So the
shape that a record is computed in is told by that record and by public settings alone, short batches are filled, and
whether the rows of a shape are all treated alike is tried on made-up records before the shape is used. Where they are
not, records of that shape are computed one at a time.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from dpzo.errors import Refusal
from dpzo.types import Indices

MULTIPLE = 8  # padded widths are multiples of this, so that records meet in few shapes


def width(length: int, limit: int | None = None) -> int:
    """Return the padded width of a record of ``length`` tokens, for a model that sees ``limit`` at most.

    There is always some padding: attention takes another way through a batch that has none anywhere, which must not
    depend on the mates.

    >>> width(7), width(8), width(30, limit=30)
    (8, 16, 30)
    """
    wide = -(-(length + 1) // MULTIPLE) * MULTIPLE
    return wide if limit is None else max(length, min(wide, limit))


def filled(rows: Indices, size: int) -> Iterator[tuple[Indices, int]]:
    """Cut ``rows`` into blocks of exactly ``size``, with how many of each count; the last is filled with its first.

    >>> [(block.tolist(), real) for block, real in filled(np.array([4, 7, 5]), 2)]
    [([4, 7], 2), ([5, 5], 1)]
    """
    for start in range(0, len(rows), size):
        block = rows[start : start + size]
        yield np.concatenate([block, np.repeat(block[:1], size - len(block))]), len(block)


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are the same to the bit: NaN is itself, and 0 is not -0."""
    return a.shape == b.shape and torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))


def treats_rows_alike(compute: Callable[[Sequence[int]], Tensor], size: int, trials: int) -> bool:
    """Whether a batch of ``size`` rows gives a row the same bits wherever it stands and whatever the others are.

    ``compute`` evaluates made-up records, told by their numbers, to ``size`` rows of values. This tries, and proves
    nothing: give several ``trials`` where a record has few values, for these may agree by chance. One row has no mates.
    """
    if size == 1:
        return True
    own = []
    for trial in range(trials):
        values = compute([trial] * size).reshape(size, -1)
        own.append(values[:1])
        if not same_bits(values, values[:1].expand_as(values)):
            return False
    mixed = [row % trials for row in range(size)]
    return same_bits(compute(mixed).reshape(size, -1), torch.cat([own[trial] for trial in mixed]))


def rows_of(size: object) -> int:
    """Refuse what is no number of rows."""
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise Refusal("physical_batch_size, a whole number of rows", repr(size), "Choose 1 or more.")
    return size
