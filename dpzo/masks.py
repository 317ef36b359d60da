"""Which coordinates move: a share of them, chosen by a score that no data enter, packed so that the rest cost nothing.

A direction over the kept coordinates is drawn for these alone, and so is everything else of a step but the forward
passes: time and memory go with the number kept, never with d. A mask takes two bytes for each kept coordinate (their
places within runs of 65,536), and the packed values as many as they take in the model: of 1 % of float32 weights 1.5 %
of the weights' memory, of 16-bit weights 2.0 %. Places are unpacked a piece at a time: a few MiB, gone after the step.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from dpzo.errors import Refusal, positive, whole
from dpzo.fingerprint import fingerprint
from dpzo.parameters import Parameters
from dpzo.scores import SCORES

if TYPE_CHECKING:
    from dpzo.directions import Drawn
    from dpzo.stages import Stage

Score = Literal["synflow", "magnitude", "random", "zo-grasp", "authors"]
Scope = Literal["global", "layer"]
Strategy = Literal["static", "dynamic", "incremental"]
_RUN = 16  # bits of a place within its run
_BLOCK = 2**22  # scores looked at at once
_PIECE = 2**16  # places unpacked at once, at 16 bytes each; or a 64th of all, if that is more: a GPU wants few launches


@dataclass(frozen=True)
class Pruning:
    """How a plan chooses what moves; how much is each stage's ``keep``.

    Attributes:
        score: a key of ``dpzo.scores.SCORES``; none of them sees data.
        largest: keep the coordinates of the largest scores, or those of the smallest magnitude of score (as the
            authors' code does).
        scope: one competition among all coordinates ("global"), or one for each tensor ("layer"), which then keeps at
            least one coordinate.
        strategy: masks from the starting weights alone ("static"); from the iterate at each stage's start ("dynamic");
            or that too, but nested ("incremental"): a stage that keeps more adds to the mask of the stage before, one
            that keeps less takes away from it. What follows from released iterates costs no privacy.
        weights: (best, worst), multiples of the direction that fall linearly from the best kept coordinate to the
            worst; None: all 1.
        seed: public, for scores that are random: the same at every stage.
        must_train: patterns of names; a mask that keeps nothing of a tensor that they match is refused, at the start:
            so it takes masks that can be foreseen ("static"), or that keep some of every tensor ("layer").
    """

    score: Score = "synflow"
    largest: bool = True
    scope: Scope = "global"
    strategy: Strategy = "static"
    weights: tuple[float, float] | None = None
    seed: int = 0
    must_train: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, kind in (("score", Score), ("scope", Scope), ("strategy", Strategy)):
            if (value := getattr(self, name)) not in get_args(kind):
                raise Refusal(f"a {name} among {', '.join(get_args(kind))}", repr(value), "Choose one.")
        if self.weights is not None:
            if not isinstance(self.weights, tuple) or len(self.weights) != 2:
                raise Refusal("weights as a pair (best, worst)", repr(self.weights), "Or leave them out: all 1.")
            for weight in self.weights:
                positive("weight", weight)
        whole("seed", self.seed, 0)
        if not isinstance(self.largest, bool):
            raise Refusal("largest to be True or False", repr(self.largest), "False keeps the smallest scores.")
        if not isinstance(self.must_train, tuple) or not all(isinstance(name, str) for name in self.must_train):
            raise Refusal("must_train as a tuple of patterns", repr(self.must_train), "Write (pattern, ...).")
        if self.must_train and self.strategy != "static" and self.scope == "global":
            raise Refusal(
                'must_train beside strategy "static" or scope "layer"',
                f'"{self.strategy}" and "global"',
                "What a later mask will keep cannot be foreseen, and steps would be spent before it is refused.",
            )

    def mask(self, model: Any, keep: float, before: "Mask | None" = None) -> "Mask":
        """Score ``model`` (params; for some scores ``data_free``) and keep the best share ``keep``.

        ``before`` is the mask of the stage before, which an incremental mask contains or lies within.

        Raises:
            Refusal: a model that the score cannot be computed for, a score that is not finite, or nothing kept of what
                must train.
        """
        self._check_names(model.params)
        if self.strategy != "incremental":
            before = None
        # Rounds that prune leave zeros, which are nobody's rank: they fit a free competition for the largest alone.
        rounds = self.scope == "global" and self.largest and before is None
        scores = SCORES[self.score](model, keep if rounds else 1.0, self.seed)
        ranks = {name: scores[name].flatten() if self.largest else -scores[name].abs().flatten() for name in scores}
        for name, rank in ranks.items():
            if not all(map(math.isfinite, rank.aminmax())):
                raise Refusal("finite scores", f"one of {name} that is not", "Mend the weights, or take smaller steps.")
        chosen: dict[str, Tensor] = {}
        for group in [[name] for name in ranks] if self.scope == "layer" else [list(ranks)]:
            competing = {name: ranks[name] for name in group}
            chosen |= _best(competing if before is None else _nested(competing, keep, before), keep)
        weights = None if self.weights is None else _by_rank(ranks, chosen, *self.weights)
        mask = Mask(chosen, weights)
        for name in model.params:
            if not mask.kept(name) and any(fnmatchcase(name, pattern) for pattern in self.must_train):
                raise Refusal(
                    f"a mask that keeps something of {name}, which must train",
                    f"none of its {model.params[name].numel():,} coordinates at keep = {keep:g}",
                    'Keep more, take scope="layer", or leave it out of must_train.',
                )
        return mask

    def _check_names(self, names: Iterable[str]) -> None:
        for pattern in self.must_train:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise Refusal("patterns in must_train that match what is trained", repr(pattern), "Mend the pattern.")


def _nested(ranks: Mapping[str, Tensor], keep: float, before: "Mask") -> dict[str, Tensor]:
    # What the mask before kept goes first, if there is room for all of it, or else what it left goes last.
    growing = math.ceil(keep * sum(map(len, ranks.values()))) >= sum(map(before.kept, ranks))
    nested = {}
    for name, rank in ranks.items():
        mine = torch.zeros_like(rank, dtype=torch.bool)
        mine[before.indices(name)] = True
        nested[name] = rank.masked_fill(mine if growing else ~mine, math.inf if growing else -math.inf)
    return nested


def _best(ranks: Mapping[str, Tensor], keep: float) -> dict[str, Tensor]:
    # Of equal ranks the earlier coordinates: the mask must be the same wherever it is computed again.
    left = count = math.ceil(keep * sum(map(len, ranks.values())))
    least = _kth_largest(list(ranks.values()), count)
    left -= sum(int((rank > least).sum()) for rank in ranks.values())
    chosen = {}
    for name, rank in ranks.items():
        mine = rank > least
        ties = torch.nonzero(rank == least).flatten()[:left]
        mine[ties] = True
        left -= len(ties)
        chosen[name] = torch.nonzero(mine).flatten()
    return chosen


def _kth_largest(parts: Sequence[Tensor], k: int) -> float:
    # By two histograms of 16 bits each, block by block: a sort of all weights would take several times their memory.
    top, k = _bucket(parts, k, lambda key: (key >> 16) + 2**15)
    low, _ = _bucket(parts, k, lambda key: (key & 0xFFFF)[(key >> 16) + 2**15 == top])
    key = torch.tensor([((top - 2**15) << 16) | low], dtype=torch.int32)
    return _ordered(key).view(torch.float32).item()


def _bucket(parts: Sequence[Tensor], k: int, bits: Callable[[Tensor], Tensor]) -> tuple[int, int]:
    """Which bucket holds the k-th largest, and the how-many-eth it is in there."""
    blocks = (block for part in parts for block in torch.split(part.float(), _BLOCK))
    counts = sum(torch.bincount(bits(_ordered(block.view(torch.int32))), minlength=2**16).cpu() for block in blocks)
    above = torch.cumsum(torch.as_tensor(counts).flip(0), 0)  # of this bucket and of those above it
    at = int(torch.searchsorted(above, k))
    return 2**16 - 1 - at, k - (int(above[at - 1]) if at else 0)


def _ordered(bits: Tensor) -> Tensor:
    # The bits of floats as integers in the floats' order; its own inverse.
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def _by_rank(ranks: Mapping[str, Tensor], chosen: Mapping[str, Tensor], best: float, worst: float) -> dict[str, Tensor]:
    kept = torch.cat([ranks[name][chosen[name]] for name in ranks])
    place = torch.empty(len(kept), dtype=torch.float64, device=kept.device)
    order = torch.argsort(kept, descending=True, stable=True)
    place[order] = torch.linspace(best, worst, len(kept), dtype=torch.float64, device=kept.device)
    parts = torch.split(place.float(), [len(chosen[name]) for name in ranks])
    return dict(zip(ranks, parts, strict=True))


class Mask:
    """The kept coordinates of each tensor, by name, in ascending order, and their weights, if they have any.

    ``count`` is how many are kept; ``nbytes`` what the mask takes.
    """

    def __init__(self, indices: Mapping[str, Tensor], weights: Mapping[str, Tensor] | None = None) -> None:
        self.weights = weights
        self.count = sum(map(len, indices.values()))
        self._places = {name: (at & (2**_RUN - 1)).to(torch.uint16) for name, at in indices.items()}
        counts = {name: torch.bincount(at >> _RUN) for name, at in indices.items()}  # of each run
        self._bounds = {name: torch.nn.functional.pad(count, (1, 0)).cumsum(0) for name, count in counts.items()}

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits that name the kept coordinates and their weights."""
        ends = {name: bounds[1:] for name, bounds in self._bounds.items()}
        return fingerprint((self._places, ends, self.weights))[:16]

    @property
    def nbytes(self) -> int:
        """Bytes of the packed mask with its weights."""
        parts = [*self._places.values(), *self._bounds.values(), *(self.weights or {}).values()]
        return sum(part.nbytes for part in parts)

    def kept(self, name: str) -> int:
        """How many coordinates of a tensor are kept."""
        return len(self._places.get(name, ()))

    def indices(self, name: str, where: slice = slice(None)) -> Tensor:
        """The kept coordinates of a tensor, flat, int64; or the part ``where`` of them."""
        first, last, _ = where.indices(self.kept(name))
        counts = self._bounds[name].clamp(first, last).diff()  # of each run, how many are asked for
        runs = torch.repeat_interleave(counts, output_size=last - first)
        wide: Tensor = self._places[name][where].to(torch.int64)
        return wide.add_(runs, alpha=2**_RUN)


class Kept(Parameters):
    """The coordinates of ``full`` that a mask keeps, packed: to an algorithm a small model, whose d is their number.

    Their values live here. ``full`` is written at the kept places alone, so frozen coordinates keep their bits, tied
    weights stay tied, and between steps ``full`` is the model.
    """

    hold = False  # what a mask saves is not to be spent on a copy of u

    def __init__(self, full: Parameters, mask: Mask) -> None:
        self.full, self.mask = full, mask
        super().__init__({name: t.data.new_empty(k) for name, t in full.items() if (k := mask.kept(name))})
        for name, values in self._tensors.items():
            for at, part in self._pieces(name, values):
                torch.take(full[name].data, at, out=part)

    @contextmanager
    def moved(self, u: "Drawn", scale: float) -> Iterator[None]:
        """Let the model see x + scale * u at the kept coordinates, then x again, bit for bit."""
        try:
            for name, where, z in u.normals():
                z = z if self.mask.weights is None else z * self.mask.weights[name][where]
                wide = self._tensors[name][where]
                self._write(name, torch.add(wide.to(z.dtype), z, alpha=scale * u.factor).to(wide.dtype), where.start)
            yield
        finally:
            self._write_all()

    def add_(self, u: "Drawn", scale: float) -> None:
        """x += scale * u, times the mask's weights."""
        for name, where, z in u.normals():
            z = z if self.mask.weights is None else z * self.mask.weights[name][where]
            own = self._tensors[name][where]
            own.copy_(torch.add(own.to(z.dtype), z, alpha=scale * u.factor))
        self._write_all()

    def pull_(self, weight: float) -> None:
        """x += weight * (anchor - x)."""
        super().pull_(weight)
        self._write_all()

    def restore(self, snapshot: Mapping[str, Tensor]) -> None:
        """Write a snapshot back."""
        super().restore(snapshot)
        self._write_all()

    def _write_all(self) -> None:
        for name, values in self._tensors.items():
            self._write(name, values)

    def _write(self, name: str, values: Tensor, start: int = 0) -> None:
        home = self.full[name].data.view(-1)
        for at, part in self._pieces(name, values, start):
            home[at] = part

    def _pieces(self, name: str, values: Tensor, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        # Where in ``full`` the packed values from ``start`` on belong, and these: never all places at once.
        for part in torch.split(values, max(_PIECE, len(values) // 64)):
            yield self.mask.indices(name, slice(start, start + len(part))), part
            start += len(part)


def fixed_masks(pruning: Pruning, model: Any, stages: "tuple[Stage, ...]") -> list[Mask]:
    """The masks of a static pruning, one for each stage, from the weights as they are; equal shares share a mask."""
    by_share = {keep: pruning.mask(model, keep) for keep in dict.fromkeys(stage.keep for stage in stages)}
    return [by_share[stage.keep] for stage in stages]
