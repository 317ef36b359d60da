"""The trainable tensors of a model, by name, and their excursions along a direction."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dpzo.errors import Refusal

if TYPE_CHECKING:
    from dpzo.directions import Drawn


def chosen(module: nn.Module, patterns: Iterable[str]) -> dict[str, Tensor]:
    """The module's parameters whose names match a pattern (``*`` matches anything), in the module's own order.

    Raises:
        Refusal: a pattern that matches no name, or only further names of tied tensors.
    """
    named: dict[str, Tensor] = dict(module.named_parameters())  # a tied tensor appears once
    found: set[str] = set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        matches = {name for name in named if fnmatchcase(name, pattern)}
        if not matches:
            raise _unmatched(module, named, pattern)
        found |= matches
    return {name: t for name, t in named.items() if name in found}


def _unmatched(module: nn.Module, named: Mapping[str, Tensor], pattern: str) -> Refusal:
    first = {id(t): name for name, t in named.items()}
    every = module.named_parameters(remove_duplicate=False)
    tied = next(((name, first[id(t)]) for name, t in every if fnmatchcase(name, pattern)), None)
    todo = f"Names look like {', '.join(list(named)[-3:])}."
    if tied is not None:
        todo = f"{tied[0]} is tied to {tied[1]}, the same tensor: ask for it by that name."
    return Refusal("patterns that match names of parameters", repr(pattern), todo)


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
