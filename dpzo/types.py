"""The contracts that the rooms share; nothing here computes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from dp_accounting import DpEvent
from torch import Tensor

from dpzo.parameters import Parameters

Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Records = Any
"""What ``data[indices]`` returns and ``LossModel.losses`` takes; the loop never looks inside."""


class Data(Protocol):
    """Private records that can be picked by index."""

    def __len__(self) -> int: ...
    def __getitem__(self, indices: Indices, /) -> Records: ...


class LossModel(Protocol):
    """All that a model must offer: trainable tensors and forward passes."""

    @property
    def params(self) -> Parameters: ...

    def losses(self, records: Records, /) -> Tensor:
        """Shape (b,): one loss for each record, in nats or whatever unit the task has.

        A record's loss must not depend on the other records: no batch norm, no mean over the batch.
        """
        ...


class Entropy(Protocol):
    """A source of randomness that is not the direction's."""

    @property
    def secret(self) -> bool: ...
    def at(self, step: int) -> "Entropy":
        """Return the source for one step of a run: no two steps, and no two attempts at one, draw the same."""
        ...

    def bits(self, count: int) -> int:
        """Return an integer of ``count`` random bits; ``count`` is a multiple of 8."""
        ...

    def uniform(self, size: int) -> Floats: ...
    def normal(self, size: int) -> Floats: ...


class Sampler(Protocol):
    """Who is in the batch; knows its own amplification, so no other sampler can be accounted in its place."""

    def batches(self, n: int, steps: range, private: Entropy) -> Iterator[Indices]:
        """Yield a batch of 0..n-1 for each index in ``steps``, which may begin in the middle of a run."""
        ...

    def divisor(self, n: int) -> float:
        """Return the public number that sums are divided by: never the realised batch size."""
        ...

    def event(self, inner: DpEvent, n: int, steps: int) -> DpEvent:
        """Return the event of ``steps`` steps on ``n`` records, each of which would be ``inner`` on all of them."""
        ...

    def covers(self, inner: DpEvent, relation: str) -> bool:
        """Whether an accountant can bound that event under ``relation``; a plan refuses what none can."""
        ...


@dataclass(frozen=True, slots=True)
class Step:
    """What one step releases: everything here is covered by the guarantee.

    ``scalars`` holds the released multiples of u, in units of the derivative; it is empty when the step released
    a vector instead (DPGD-0th). Together with the base weights, seeds and scalars are the fine-tuned model.
    ``mask`` is the digest of the mask that the step moved along, empty when every coordinate moved: a replay computes
    the mask again, and must find the same.
    """

    index: int
    stage: int
    seed: int
    scalars: tuple[float, ...]
    mask: str = ""
