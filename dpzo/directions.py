"""The public random direction u of a step, as a function of (seed, name of the tensor, coordinate).

The same seed gives the same u on any device, any thread count and in any order of tensors, so a step is told by its
seed. u never depends on data; the privacy proof needs no more of it than that.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor

from dpzo.kernels.philox import standard_normals

_BLOCK = 2**18  # coordinates generated at once on a CPU: their words stay in the cache
_BLOCK_ELSEWHERE = 2**24  # on a GPU, where many small launches would cost more than the arithmetic
_HELD = 2**28  # a u of up to this many coordinates (1 GiB) is generated once a step; a longer one, at each use
_AHEAD = 2**16  # directions shorter than this are generated several at once: alone, each would wait for its launches

Blocks = Iterable[tuple[str, slice, Tensor]]
Held = list[tuple[str, slice, Tensor]] | None


def _generate(like: Mapping[str, Tensor], seeds: Sequence[int]) -> Blocks:
    for name, tensor in like.items():
        stream = int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little")
        block = _BLOCK if tensor.device.type == "cpu" else _BLOCK_ELSEWHERE
        for start in range(0, tensor.numel(), block):
            count = min(block, tensor.numel() - start)
            z = standard_normals(start, count, keys=seeds, stream=stream, device=tensor.device)
            yield name, slice(start, start + count), z


def _total(blocks: Iterable[Tensor]) -> float:
    """The sum of all numbers: rows of fixed length, then their sums exactly, so that no thread count can change it."""
    rows: list[float] = []
    for block in blocks:
        rows += torch.nn.functional.pad(block, (0, -len(block) % 512)).view(-1, 512).sum(1).tolist()
    return math.fsum(rows)


class Drawn:
    """One drawn direction u over the named tensors ``like``: a standard normal vector, times what ``law`` makes of it.

    Its coordinates are generated when they are first needed and kept, or, when ``hold`` is off, at each use.
    """

    def __init__(
        self, like: Mapping[str, Tensor], seed: int, held: Held = None, hold: bool = True, *, sphere: bool = False
    ) -> None:
        self.like, self.seed, self.sphere = like, seed, sphere
        self.count = sum(t.numel() for t in like.values())
        self.hold = hold and self.count <= _HELD
        self._held = held
        self._factor: float | None = None

    def normals(self) -> Blocks:
        """The standard normal vector in blocks (tensor's name, slice, values); u is ``factor`` times it."""
        if self._held is not None:
            return self._held
        blocks = ((name, where, z[0]) for name, where, z in _generate(self.like, [self.seed]))
        if not self.hold:
            return blocks
        # In one piece for each tensor: as many blocks would leave the heap full of holes, half as large again.
        whole = {name: torch.empty(t.numel(), device=t.device) for name, t in self.like.items()}
        self._held = [(name, where, whole[name][where].copy_(z)) for name, where, z in blocks]
        return self._held

    @property
    def factor(self) -> float:
        """What the normal vector is multiplied by: 1, or what brings it to the sphere of radius sqrt(d)."""
        if self._factor is None:
            self._factor = math.sqrt(self.count) / self._normals_norm() if self.sphere else 1.0
        return self._factor

    def norm(self) -> float:
        """Euclidean length of u."""
        return self.factor * self._normals_norm()

    def _normals_norm(self) -> float:
        return math.sqrt(_total(z.double().square() for _, _, z in self.normals()))

    def dot(self, tensors: Mapping[str, Tensor]) -> float:
        """Inner product of u with ``tensors``, in double precision."""
        flat = {name: t.view(-1) for name, t in tensors.items()}
        return self.factor * _total(z.double() * flat[name][where].double() for name, where, z in self.normals())

    def add_(self, tensors: Mapping[str, Tensor], scale: float, *, into: Mapping[str, Tensor] | None = None) -> None:
        """``tensors += scale * u``, or, when ``into`` is given, ``into = tensors + scale * u``.

        The sum is taken in float32 and rounded once to the tensor's own type.
        """
        into, alpha = tensors if into is None else into, scale * self.factor
        for name, where, z in self.normals():
            source, target = tensors[name].data.view(-1), into[name].data.view(-1)
            if len(z) < len(source):
                source, target = source[where], target[where]
            if source.dtype == torch.float32:
                torch.add(source, z, alpha=alpha, out=target)
            else:
                wide = source if source.dtype == torch.float64 else source.float()
                target.copy_(torch.add(wide, z, alpha=alpha))

    def dense(self) -> dict[str, Tensor]:
        """u written out, by name: for tests and pictures."""
        zeros = {name: torch.zeros_like(t, dtype=torch.float32) for name, t in self.like.items()}
        self.add_(zeros, 1.0)
        return zeros


class Direction(Protocol):
    """The law of u; E[u u'] = I for every law here."""

    def draw(self, like: Mapping[str, Tensor], seed: int, held: Held = None, hold: bool = True) -> Drawn:
        """Return u(seed) over tensors shaped and placed as ``like``; ``held``: its normals, where they are known."""
        ...


def seeds_of(seed: int, directions: int) -> tuple[int, ...]:
    """The seeds of a step's K directions, told by the step's own: the first is that seed itself."""
    further = (blake2b(f"dpzo direction {seed} / {k}".encode(), digest_size=8).digest() for k in range(1, directions))
    return (seed, *(int.from_bytes(digest, "little") for digest in further))


def ahead(
    direction: Direction, like: Mapping[str, Tensor], seeds: Iterable[int], directions: int = 1
) -> Iterator[tuple[Drawn, ...]]:
    """For each step's seed its K directions; the bits are those of ``direction.draw``, drawn alone or not."""
    seeds, count = iter(seeds), directions * sum(t.numel() for t in like.values())
    if count > _AHEAD // 2:
        hold = count <= _HELD and getattr(like, "hold", True)
        for seed in seeds:
            yield tuple(direction.draw(like, s, None, hold) for s in seeds_of(seed, directions))
    while chunk := [s for seed in islice(seeds, _AHEAD // count) for s in seeds_of(seed, directions)]:
        blocks = list(_generate(like, chunk))
        for first in range(0, len(chunk), directions):
            yield tuple(
                direction.draw(like, chunk[k], [(name, where, z[k]) for name, where, z in blocks])
                for k in range(first, first + directions)
            )


@dataclass(frozen=True)
class GaussianDirection:
    """u ~ N(0, I_d), the law of the language-model experiments.

    Source: Zhang et al. 2024, section 4 (all language experiments).
    """

    def draw(self, like: Mapping[str, Tensor], seed: int, held: Held = None, hold: bool = True) -> Drawn:
        """Return u(seed)."""
        return Drawn(like, seed, held, hold)


@dataclass(frozen=True)
class SphereDirection:
    """u uniform on the sphere of radius sqrt(d), the law of the theory.

    Source: Zhang et al. 2024, Alg. 1 and Alg. 2: "u_t uniform on sqrt(d) S^{d-1}", drawn as sqrt(d) z / ||z||.
    """

    def draw(self, like: Mapping[str, Tensor], seed: int, held: Held = None, hold: bool = True) -> Drawn:
        """Return u(seed)."""
        return Drawn(like, seed, held, hold, sphere=True)
