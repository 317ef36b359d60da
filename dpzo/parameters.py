"""The trainable tensors of a model, by name, and their excursions along a direction."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dpzo.errors import Refusal

if TYPE_CHECKING:
    from dpzo.directions import Drawn


class Parameters(Mapping[str, Tensor]):
    """Trainable tensors by name; ``count`` is the paper's d.

    ``anchor`` is what ``pull_`` pulls to: a copy of the tensors, or None where nothing pulls.

    Raises:
        Refusal: nothing to train, a tensor that is not floating point or not contiguous, or one tensor under two names.
    """

    hold = True  # whether a direction may be kept for the whole of a step

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = dict(tensors)
        if not self._tensors or not all(t.numel() for t in self._tensors.values()):
            raise Refusal("at least one non-empty tensor to train", list(tensors), "Choose what is trained.")
        seen: dict[int, str] = {}
        for name, tensor in self._tensors.items():
            if not tensor.is_floating_point():
                raise Refusal("floating-point tensors to train", f"{name} of {tensor.dtype}", "Leave it frozen.")
            if not tensor.is_contiguous():
                raise Refusal("contiguous tensors to train", f"{name}, a strided view", "Train a contiguous copy.")
            if tensor.data_ptr() in seen:
                raise Refusal(
                    "each trained tensor under one name",
                    f"{name}, the same memory as {seen[tensor.data_ptr()]}",
                    "Name a tied tensor once.",
                )
            seen[tensor.data_ptr()] = name
        self.count = sum(t.numel() for t in self._tensors.values())
        self.anchor: dict[str, Tensor] | None = None
        self._scratch: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    @contextmanager
    def moved(self, u: "Drawn", scale: float) -> Iterator[None]:
        """Let the model see x + scale * u, then x again.

        x itself is never written: the tensors point at a second buffer meanwhile, so they come back bit-identical
        whatever happens inside. (Adding and subtracting in place leaves about half of the coordinates changed.)
        The buffer costs as much memory as what is trained.
        """
        if not self._scratch:
            self._scratch = {name: torch.empty_like(t) for name, t in self._tensors.items()}
        u.add_(self._tensors, scale, into=self._scratch)
        home = {name: t.data for name, t in self._tensors.items()}
        try:
            for name, t in self._tensors.items():
                t.data = self._scratch[name]
            yield
        finally:
            for name, t in self._tensors.items():
                t.data = home[name]

    def add_(self, u: "Drawn", scale: float) -> None:
        """x += scale * u."""
        u.add_(self._tensors, scale)

    def pull_(self, weight: float) -> None:
        """x += weight * (anchor - x)."""
        assert self.anchor is not None
        for name, t in self._tensors.items():
            t.data.lerp_(self.anchor[name], weight)

    def snapshot(self) -> dict[str, Tensor]:
        """Return copies of the tensors, by name."""
        return {name: t.detach().clone() for name, t in self._tensors.items()}

    def restore(self, snapshot: Mapping[str, Tensor]) -> None:
        """Write a snapshot back."""
        for name, t in self._tensors.items():
            t.data.copy_(snapshot[name])
