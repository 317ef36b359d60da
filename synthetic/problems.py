"""Problems with known answers: the paper's quadratic, a non-convex one under PL, and a small network with its teacher.

The quadratic is f(x; x_i) = (x - x_i)' A (x - x_i) / 2, x_i with coordinates N(1, 1), A diagonal.

Source: Zhang et al. 2024, section 5.1: ||A|| = 1 and Tr A of order d, sqrt(d) or log(d). The other two are ours.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dpzo import ModuleModel, Refusal, memory
from dpzo.independence import COUPLED
from dpzo.parameters import Parameters
from dpzo.theory.spectra import Spectrum, power_law

Array = npt.NDArray[np.float32]
RANKS = {"d": 0.0, "sqrt(d)": 0.5, "log(d)": 1.0}  # the exponent p of a_j = j**-p that makes the effective rank this
KEPT = 3  # problems whose records stay: every rank and method of an experiment asks for the same few, by turns
_AT_ONCE = 2**20  # coordinates drawn at once


@dataclass(frozen=True)
class Split:
    """What a set of records says of the losses: their mean, and the least mean loss that any x can have."""

    mean: Array
    least: float


Moments = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""(d,) means and (d,) variances of a set of records."""


@dataclass(frozen=True)
class _Drawn:
    records: Array
    train: Moments
    test: Moments


@lru_cache(maxsize=KEPT)
def _drawn(n: int, d: int, seed: int) -> _Drawn:
    memory.require(bytes_of_records(n, d), "records", "Take a smaller d or n.")
    rows = max(1, _AT_ONCE // d)
    starts = range(0, n, rows)

    def draw(which: int) -> Iterator[Array]:
        generator = np.random.Generator(np.random.SFC64([seed, d, which]))
        return (1 + generator.standard_normal((min(rows, n - first), d), dtype=np.float32) for first in starts)

    records = np.empty((n, d), dtype=np.float32)
    for first, block in zip(starts, draw(0), strict=True):
        records[first : first + rows] = block
    return _Drawn(records, _moments((records[first : first + rows] for first in starts), n), _moments(draw(1), n))


def bytes_of_records(n: int, d: int) -> int:
    """Bytes that a problem's records take: those kept, and and some blocks of them while they are drawn."""
    return 4 * n * d + 24 * max(min(n * d, _AT_ONCE), d)


def _moments(blocks: Iterable[Array], n: int) -> Moments:
    # Sums about 1, where the records lie, so that no digits are lost in the difference; no float64 copy of them all.
    first, second = 0.0, 0.0
    for block in blocks:
        away = block - np.float64(1)
        first, second = first + away.sum(0), second + np.einsum("ij,ij->j", away, away)
    return 1 + first / n, second / n - np.square(first / n)


@dataclass(frozen=True)
class Problem:
    """``n`` training and ``n`` test records in R^d, drawn by ``seed``; ``rank`` is a key of RANKS.

    Raises:
        Refusal: no records or dimensions, an unknown rank; when they are drawn, records that do not fit in memory.
    """

    n: int
    d: int
    rank: str
    seed: int

    def __post_init__(self) -> None:
        if self.rank not in RANKS:
            raise Refusal(f"an effective rank among {', '.join(RANKS)}", repr(self.rank), "Choose one.")
        if self.n < 1 or self.d < 1:
            raise Refusal("one record or more, of dimension 1 or more", f"n = {self.n}, d = {self.d}", "Take more.")

    @cached_property
    def spectrum(self) -> Spectrum:
        """The eigenvalues of A."""
        return power_law(self.d, RANKS[self.rank])

    @cached_property
    def a(self) -> Array:
        """(d,) the diagonal of A."""
        memory.require(20 * self.d, "eigenvalues, one by one,", "Take a smaller d.")
        return (np.arange(1, self.d + 1) ** -RANKS[self.rank]).astype(np.float32)

    @property
    def records(self) -> Array:
        """(n, d) training records; the same for every rank, and not to be written to."""
        return _drawn(self.n, self.d, self.seed).records

    @property
    def train(self) -> Split:
        """The training set's mean and least loss."""
        return self._split(_drawn(self.n, self.d, self.seed).train)

    @property
    def test(self) -> Split:
        """The test set's."""
        return self._split(_drawn(self.n, self.d, self.seed).test)

    def _split(self, moments: Moments) -> Split:
        mean, spread = moments
        return Split(mean.astype(np.float32), float(spread @ self.a) / 2)

    def gradient_norm(self, x: Array, split: Split) -> npt.NDArray[np.float64]:
        """(R,) norms of the gradient of the mean loss at each row of ``x`` (R, d)."""
        return np.linalg.norm((self.a * (x - split.mean)).astype(np.float64), axis=1)

    def loss(self, x: Array, split: Split) -> npt.NDArray[np.float64]:
        """(R,) mean losses at each row of ``x``."""
        away = (x - split.mean).astype(np.float64)
        return np.asarray((away**2) @ self.a.astype(np.float64) / 2 + split.least)


WAVE_PL = 0.0219  # of ``wave``; proved in tests/synthetic/test_wave.py, where 0.02195 is shown to be too much


def wave(z: Tensor) -> Tensor:
    """psi(z) = (z^2 + 3 sin^2 z) / 8 of each coordinate: psi'' from -1/2 to 1, and psi'^2 >= 2 WAVE_PL psi, psi >= 0.

    The PL constant that is usually told for z^2 + 3 sin^2 z is 1/32; 0.175 holds too, and little more does.
    """
    return (z.square() + 3 * z.sin().square()) / 8


@dataclass(frozen=True)
class Wave:
    """A non-convex problem under PL, of any dimension and rank: f(x; b_i) = sum_{j <= active} psi(x_j) + b_i'x.

    The n tilts b_i are of length ``tilt`` and come in pairs b, -b, so that F is the sum of the psi, with the minimum 0
    at x_j = 0. For F and every record -H <= Hessian <= H with H = diag(1, .., 1, 0, .., 0): l = 1 and r = ``active``;
    mu = WAVE_PL, whatever d and r. Where F <= B every record is Lipschitz with L = sqrt(2 B) + tilt, because
    |grad F|^2 <= 2 l (F - F*). Runs start at x_j = 2.5 on the active coordinates: between there and 0 lies a stretch of
    negative curvature.

    Raises:
        Refusal: an odd n, or an effective rank out of 1 .. d.
    """

    n: int
    d: int
    active: int
    tilt: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n % 2 or self.n < 2:
            raise Refusal("an even number of records, two or more", self.n, "Their tilts come in pairs.")
        if not 1 <= self.active <= self.d:
            raise Refusal(f"from 1 to d = {self.d} active coordinates", self.active, "They are the effective rank.")

    @cached_property
    def tilts(self) -> Tensor:
        """(n, d) float64 records."""
        memory.require(16 * self.n * self.d, "records", "Take a smaller d or n.")
        half = torch.randn(self.n // 2, self.d, generator=torch.Generator().manual_seed(self.seed), dtype=torch.float64)
        half *= self.tilt / half.norm(dim=1, keepdim=True)
        return torch.cat([half, -half])

    @property
    def start(self) -> Tensor:
        """(d,) x_0."""
        return 2.5 * (torch.arange(self.d) < self.active).double()

    def value(self, x: Tensor) -> Tensor:
        """F, above its minimum 0, at each row of ``x`` (.., d)."""
        return wave(x[..., : self.active]).sum(-1)

    def lipschitz(self, B: float) -> float:
        """L on the region where F <= B."""
        return math.sqrt(2 * B) + self.tilt


class Tilted:
    """The model of a ``Wave``: records are rows (b, d) of its tilts."""

    couples_records = COUPLED  # one matrix product for all

    def __init__(self, problem: Wave) -> None:
        self.problem = problem
        self.params = Parameters({"x": problem.start})

    def losses(self, records: Tensor) -> Tensor:
        """(b,) losses at the current x."""
        return self.problem.value(self.params["x"]) + records @ self.params["x"]


@dataclass(frozen=True)
class Network:
    """A two-layer tanh network that learns from a noisy teacher of the same shape, by squared loss.

    Input j has standard deviation 1/j. The minimum is not known; the teacher's own loss is near it, and nothing is
    known of the curvature: it is measured (``synthetic.curvature``).

    Raises:
        Refusal: no records, or more than fit in memory.
    """

    n: int
    inputs: int = 20
    hidden: int = 8
    label_noise: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n < 1:
            raise Refusal("one record or more", self.n, "Write --n 10000.")

    @cached_property
    def data(self) -> Tensor:
        """(n, inputs + 1) records: inputs, then the teacher's noisy answer."""
        memory.require(16 * self.n * (self.inputs + self.hidden), "records", "Take a smaller n.")
        generator = torch.Generator().manual_seed(self.seed)
        x = torch.randn(self.n, self.inputs, generator=generator) / torch.arange(1, self.inputs + 1)
        noise = self.label_noise * torch.randn(self.n, 1, generator=generator)
        with torch.no_grad():
            return torch.cat([x, self._made(1, spread=2.0)(x) + noise], dim=1)

    def student(self) -> ModuleModel:
        """A network at its starting weights, the same each time."""
        return ModuleModel(self._made(2, spread=1.0), squared_errors)

    def teacher(self) -> ModuleModel:
        """The network that answered."""
        return ModuleModel(self._made(1, spread=2.0), squared_errors)

    def _made(self, which: int, spread: float) -> nn.Module:
        generator = torch.Generator().manual_seed(1000 * self.seed + which)
        made = nn.Sequential(nn.Linear(self.inputs, self.hidden), nn.Tanh(), nn.Linear(self.hidden, 1))
        with torch.no_grad():
            for parameter in made.parameters():
                width = parameter.shape[1] if parameter.ndim == 2 else 4 * self.hidden
                parameter.copy_(spread * torch.randn(parameter.shape, generator=generator) / math.sqrt(width))
        return made


def squared_errors(module: Callable[[Tensor], Tensor], records: Tensor) -> Tensor:
    """(b,) half squared errors of the answers in the last column."""
    return (module(records[:, :-1])[:, 0] - records[:, -1]).square() / 2
