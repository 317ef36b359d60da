"""The public random direction u of a step, as a function of (seed, name of the tensor, coordinate).

The same seed gives the same u on any device, any thread count and in any order of tensors, so a step is told by its
seed. u never depends on data; the privacy proof needs no more of it than that.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

import torch
from torch import Tensor

from dpzo.kernels.philox import standard_normal

_BLOCK = 2**18  # coordinates generated at once on a CPU: their words stay in the cache
_BLOCK_ELSEWHERE = 2**24  # on a GPU, where many small launches would cost more than the arithmetic
_HELD = 2**28  # a u of up to this many coordinates (1 GiB) is generated once a step; a longer one, at each use


class Drawn:
    """One drawn direction u over the named tensors ``like``: ``factor`` times a standard normal vector."""

    def __init__(self, like: Mapping[str, Tensor], seed: int) -> None:
        self.like, self.seed, self.factor = like, seed, 1.0
        self.count = sum(t.numel() for t in like.values())
        self._held: list[tuple[str, slice, Tensor]] | None = None
        if self.count <= _HELD:
            self._held = list(self._generate())

    def _generate(self) -> Iterator[tuple[str, slice, Tensor]]:
        for name, tensor in self.like.items():
            stream = int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little")
            block = _BLOCK if tensor.device.type == "cpu" else _BLOCK_ELSEWHERE
            for start in range(0, tensor.numel(), block):
                count = min(block, tensor.numel() - start)
                z = standard_normal(start, count, key=self.seed, stream=stream, device=tensor.device)
                yield name, slice(start, start + count), z

    def _blocks(self) -> Iterator[tuple[str, slice, Tensor]]:
        return iter(self._held) if self._held is not None else self._generate()

    def norm(self) -> float:
        """Euclidean length of u."""
        # Rows of fixed length, then their sums in exact arithmetic: no thread count can change the result.
        rows: list[float] = []
        for _, _, z in self._blocks():
            padded = torch.nn.functional.pad(z, (0, -len(z) % 512)).view(-1, 512)
            rows += padded.double().square().sum(1).tolist()
        return self.factor * math.sqrt(math.fsum(rows))

    @torch.no_grad()
    def add_(self, tensors: Mapping[str, Tensor], scale: float, *, into: Mapping[str, Tensor] | None = None) -> None:
        """``tensors += scale * u``, or, when ``into`` is given, ``into = tensors + scale * u``.

        The sum is taken in float32 and rounded once to the tensor's own type.
        """
        into = tensors if into is None else into
        for name, where, z in self._blocks():
            source, target = tensors[name].data.view(-1)[where], into[name].data.view(-1)[where]
            if source.dtype == torch.float32:
                torch.add(source, z, alpha=scale * self.factor, out=target)
            else:
                wide = source if source.dtype == torch.float64 else source.float()
                target.copy_(torch.add(wide, z, alpha=scale * self.factor))

    def dense(self) -> dict[str, Tensor]:
        """u written out, by name: for tests and pictures."""
        zeros = {name: torch.zeros_like(t, dtype=torch.float32) for name, t in self.like.items()}
        self.add_(zeros, 1.0)
        return zeros


class Direction(Protocol):
    """The law of u; E[u u'] = I for every law here."""

    def draw(self, like: Mapping[str, Tensor], seed: int) -> Drawn:
        """Return u(seed) over tensors shaped and placed as ``like``."""
        ...


@dataclass(frozen=True)
class GaussianDirection:
    """u ~ N(0, I_d), the law of the language-model experiments.

    Source: Zhang et al. 2024, section 4 (all language experiments).
    """

    def draw(self, like: Mapping[str, Tensor], seed: int) -> Drawn:
        """Return u(seed)."""
        return Drawn(like, seed)


@dataclass(frozen=True)
class SphereDirection:
    """u uniform on the sphere of radius sqrt(d), the law of the theory.

    Source: Zhang et al. 2024, Alg. 1 and Alg. 2: "u_t uniform on sqrt(d) S^{d-1}", drawn as sqrt(d) z / ||z||.
    """

    def draw(self, like: Mapping[str, Tensor], seed: int) -> Drawn:
        """Return u(seed)."""
        u = Drawn(like, seed)
        u.factor = math.sqrt(u.count) / u.norm()
        return u
