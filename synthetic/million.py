"""DPZero and DPGD-0th on the quadratic in as many dimensions as its directions fit in memory: a million in 2 GiB.

Ten thousand records of a million coordinates would take 40 GB. But a run meets record i only through its T products
u_t' A x_i with the directions, which are drawn without the data. Coordinates of records are N(1, 1), so these products
are jointly normal: let the records' mean be drawn, all d coordinates; then what is left of the products is normal with
covariance U A^2 U' over the steps, independent over the records but for its mean over them, which is 0. To draw them so
is to draw the records: the runs have the law of runs on n records in full, each of them clipped at each step.

Directions and noise are those of ``dpzo.run`` with ``Streams.not_private(seed, seed)``: NOT PRIVATE, as a simulation
should be. A test runs the two side by side.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.linalg import eigh
from scipy.linalg.blas import ssyrk

from dpzo import memory
from dpzo.directions import SphereDirection, ahead
from dpzo.noise import rounded_gaussian
from dpzo.randomness import Streams
from synthetic.problems import RANKS, Array
from synthetic.sweep import Floats

_COORDINATES = 2**14  # at once
_NOISE_GRID = 2.0**30


class Run(NamedTuple):
    """A method with its parameters: ``clip`` is for a record's scalar, or vector (DPGD-0th); ``sigma`` on the mean."""

    method: str
    rank: str
    alpha: float
    steps: int
    clip: float
    sigma: float


def simulate(
    d: int, n: int, runs: Sequence[Run], seed: int, advance: Callable[[int], object] = lambda steps: None
) -> list[float]:
    """||grad F||^2 at the end of each run, as a share of that at x_0 = 0; ``n`` records, drawn by ``seed``.

    Raises:
        Refusal: a T and d whose directions do not fit in memory.
    """
    most = max(run.steps for run in runs)
    memory.require(4 * d * (most + 30), "directions", "Simulate up to a smaller dimension, or take fewer steps.")
    streams, generator = Streams.not_private(seed, seed), np.random.Generator(np.random.SFC64([seed, d]))
    mean = 1 + generator.standard_normal(d) / np.sqrt(n)
    U = np.empty((most, d), dtype=np.float32)
    for t, (u,) in enumerate(ahead(SphereDirection(), {"x": torch.empty(d)}, map(streams.direction_seed, range(most)))):
        U[t] = u.dense()["x"]
    spectra = {rank: (np.arange(1, d + 1) ** -RANKS[rank]).astype(np.float32) for rank in {run.rank for run in runs}}
    seen = {rank: products(U, a, mean, n, generator) for rank, a in spectra.items()}
    ends = descend(runs, U, spectra, seen, streams, advance)
    shares = []
    for run, x in zip(runs, ends, strict=True):
        a = spectra[run.rank].astype(np.float64)
        shares.append(float(np.square(a * (x - mean)).sum() / np.square(a * mean).sum()))
    return shares


def products(U: Array, a: Array, mean: Floats, n: int, generator: np.random.Generator) -> Floats:
    """(T, n) the products u_t' A x_i for n records of the given mean: drawn as above, and no record ever is."""
    covariance, common = np.zeros((len(U), len(U))), np.zeros(len(U))
    for first in range(0, len(a), _COORDINATES):
        some = slice(first, first + _COORDINATES)
        weighted = U[:, some] * a[some]
        covariance += ssyrk(1.0, weighted.T, trans=1)  # its upper half
        common += weighted @ mean[some]
    values, vectors = eigh(covariance, lower=False, driver="evd")
    own = generator.standard_normal((len(U), n))
    own -= own.mean(1, keepdims=True)
    return np.asarray(common[:, None] + vectors * np.sqrt(values.clip(0)) @ own)


def descend(
    runs: Sequence[Run],
    U: Array,
    spectra: Mapping[str, Array],
    seen: Mapping[str, Floats],
    streams: Streams,
    advance: Callable[[int], object] = lambda steps: None,
) -> list[npt.NDArray[np.float32]]:
    """The last iterate of each run, from x_0 = 0: ``spectra`` and the products ``seen`` by rank."""
    xs = [np.zeros(U.shape[1], dtype=np.float32) for _ in runs]
    for t, u in enumerate(U):
        slopes = {rank: a * u for rank, a in spectra.items()}
        noise, d = streams.noise.at(t), len(u)
        z = float(rounded_gaussian(_NOISE_GRID, 1, noise)[0]) / _NOISE_GRID
        vector = None
        for run, x in zip(runs, xs, strict=True):
            if t >= run.steps:
                continue
            # |u| = sqrt(d), so clipping the vector v u at C clips v at C / sqrt(d).
            c = run.clip / np.sqrt(d) if run.method == "DPGD-0th" else run.clip
            moved = float(np.clip(float(x @ slopes[run.rank]) - seen[run.rank][t], -c, c).mean())
            if run.method == "DPGD-0th":
                if vector is None:  # z along u, as long as it is, and the rest of a normal vector across
                    vector = noise.normal(d).astype(np.float32)
                    along = z / np.sqrt(d) - float(np.dot(vector, u)) / d
                x -= np.float32(run.alpha * run.sigma) * vector
                moved += run.sigma * along
            else:
                moved += run.sigma * z
            x -= np.float32(run.alpha * moved) * u
        advance(1)
    return xs
