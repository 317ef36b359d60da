"""User-level privacy: a neighbour differs in one user with all of its records, so a user's mean loss is clipped.

With scalars this is a group-by: the derivative of a user's mean loss is the mean of its records' derivatives, and
clipping it to C bounds what all of the user's records do together, however many they are.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dpzo.errors import Refusal
from dpzo.independence import couples_records
from dpzo.parameters import Parameters
from dpzo.records import made_up
from dpzo.types import Data, Indices, LossModel, Records


@dataclass(frozen=True)
class UserRecords:
    """All records of some users, one user after the other; ``sizes`` says how many each has."""

    records: Records
    sizes: Indices

    def __len__(self) -> int:
        return len(self.sizes)

    def made_up(self, rows: Sequence[int]) -> "UserRecords":
        """Public users in this form, told by their numbers, with one to three records each."""
        return _users(lambda numbers: made_up(self.records, numbers), rows)


def _users(make: Callable[[Sequence[int]], Records], rows: Sequence[int]) -> UserRecords:
    sizes = [1 + row % 3 for row in rows]
    numbers = [3 * row + k for row, size in zip(rows, sizes, strict=True) for k in range(size)]
    return UserRecords(make(numbers), np.array(sizes, dtype=np.int64))


class ByUser:
    """``data`` by user: ``users`` (n,) names the user of each record, by a number or a string.

    Its length is the number of users; indices pick users, in the order of their names, with all of their records.

    Raises:
        Refusal: not one user for each record.
    """

    unit: ClassVar[str] = "user"

    def __init__(self, data: Data, users: npt.ArrayLike) -> None:
        names = np.asarray(users)
        if names.shape != (len(data),):
            raise Refusal(f"a user for each of {len(data)} records", f"shape {names.shape}", "Name each record's user.")
        if names.dtype.kind not in "iuSU":
            raise Refusal("users named by whole numbers or strings", f"type {names.dtype}", "Number the users.")
        self.data = data
        self.users, owner = np.unique(names, return_inverse=True)
        self._rows = np.argsort(owner, kind="stable")  # a user's records stay in the data's order
        self._sizes = np.bincount(owner, minlength=len(self.users)).astype(np.int64)
        self._ends = self._sizes.cumsum()

    def __len__(self) -> int:
        return len(self.users)

    def __getitem__(self, indices: Indices) -> UserRecords:
        parts = [self._rows[self._ends[user] - self._sizes[user] : self._ends[user]] for user in indices]
        rows = np.concatenate(parts) if parts else self._rows[:0]
        return UserRecords(self.data[rows], self._sizes[indices])


class UserModel:
    """``model`` seen by user: the losses of ``ByUser`` records are each user's mean."""

    made_up: Callable[[Sequence[int]], UserRecords] | None

    def __init__(self, model: LossModel) -> None:
        self.model = model
        if hasattr(model, "made_up"):
            own = model.made_up
            self.made_up = None if own is None else lambda rows: _users(own, rows)

    def check_records(self, data: Any, passes: int = 0) -> None:
        """As the model's, if it has one, on all records of all users."""
        if isinstance(data, ByUser) and hasattr(self.model, "check_records"):
            self.model.check_records(data.data, passes)

    @property
    def params(self) -> Parameters:
        """The model's own."""
        return self.model.params

    @property
    def couples_records(self) -> str | None:
        """As for the model: a user's mean is computed of its own losses alone, in exact sums."""
        return couples_records(self.model)

    @property
    def network(self) -> Any:
        """The model's own, for scores."""
        return self.model.network  # type: ignore[attr-defined]

    def data_free(self, *, one_token: bool = False) -> Tensor:
        """As the model's, for scores."""
        told: Tensor = self.model.data_free(one_token=one_token)  # type: ignore[attr-defined]
        return told

    @property
    def data_free_tail(self) -> Any:
        """The model's own, for scores; None if it has none."""
        return getattr(self.model, "data_free_tail", None)

    def losses(self, records: UserRecords) -> Tensor:
        """(number of users,) mean losses, float64; NaN for a user with a loss that is not finite."""
        losses = self.model.losses(records.records).double().cpu().numpy()
        ends = records.sizes.cumsum()
        return torch.tensor(
            [_mean(losses[end - size : end]) for size, end in zip(records.sizes, ends, strict=True)],
            dtype=torch.float64,
        )


def _mean(losses: npt.NDArray[np.float64]) -> float:
    try:
        return math.fsum(losses) / len(losses) if np.isfinite(losses).all() else math.nan
    except OverflowError:
        return math.nan
