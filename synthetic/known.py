"""Problems all of whose constants are known: logistic regression, everywhere, and a quadratic, near its start.

They have few records, and tell losses and gradients at many weights at once.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from scipy.special import expit
from torch import nn

from dpzo import ModuleModel
from dpzo.errors import not_negative, whole
from synthetic.sweep import Floats


class Known(Protocol):
    """What ``synthetic.bounds`` simulates: n records in R^d, the theorems' constants, a start ``gap`` above F*."""

    @property
    def n(self) -> int: ...
    @property
    def d(self) -> int: ...
    @property
    def L(self) -> float: ...
    @property
    def l(self) -> float: ...  # noqa: E743
    @property
    def gap(self) -> float: ...
    @property
    def least(self) -> float: ...
    @property
    def mu(self) -> float | None: ...
    @property
    def effective_rank(self) -> float: ...
    @property
    def start(self) -> Floats: ...
    def losses(self, W: Floats) -> Floats: ...
    def gradient(self, W: Floats) -> Floats: ...
    def steepest(self, W: Floats) -> float: ...


@dataclass(frozen=True)
class Logistic:
    """f(w; x) = log(1 + exp(-x'w)), a record x being its label times its features, scaled to length 1.

    The deviation of coordinate j falls as j**-fall, and a common part of the first makes the classes separable. So each
    loss is 1-Lipschitz and 1/4-smooth, 0 <= Hessian <= H = X'X / 4n, F* = 0, and F = log 2 at the start, w = 0.

    Attributes:
        n: distinct records.
        d: dimension; it seeds the records, too.

    Raises:
        Refusal: no record, no coordinate, or a spread that grows.
    """

    n: int
    d: int
    fall: float = 1.0

    L = 1.0
    l = 0.25
    gap = math.log(2)
    least = 0.0
    mu = None

    def __post_init__(self) -> None:
        whole("n", self.n)
        whole("d", self.d)
        not_negative("fall", self.fall)

    @cached_property
    def records(self) -> Floats:
        """(n, d), each of length 1."""
        generator = np.random.default_rng(self.d)
        X = generator.standard_normal((self.n, self.d)) * np.arange(1, self.d + 1) ** -self.fall
        X[:, 0] = 1 + 0.3 * np.abs(X[:, 0])
        return np.asarray(X / np.linalg.norm(X, axis=1, keepdims=True))

    @cached_property
    def effective_rank(self) -> float:
        """r = Tr H / ||H||; Tr H is 1/4."""
        X = self.records if self.d <= self.n else self.records.T
        return self.n / float(np.linalg.eigvalsh(X.T @ X).max())

    @property
    def start(self) -> Floats:
        """(d,) zeros."""
        return np.zeros(self.d)

    def losses(self, W: Floats) -> Floats:
        """(.., n) losses at each row of ``W`` (.., d)."""
        return np.logaddexp(0, -W @ self.records.T)

    def slopes(self, W: Floats) -> Floats:
        """(.., n) derivatives of the losses in x'w: a record's gradient is this times x."""
        return np.asarray(-expit(-W @ self.records.T))

    def gradient(self, W: Floats) -> Floats:
        """(.., d) gradients of the mean loss."""
        return self.slopes(W) @ self.records / self.n

    def steepest(self, W: Floats) -> float:
        """The length of the longest record's gradient."""
        return float(np.abs(self.slopes(W)).max())

    def model(self) -> ModuleModel:
        """The same loss as a model at w = 0; its records are rows of ``records``, in double precision."""
        module = nn.Linear(self.d, 1, bias=False, dtype=torch.float64)
        nn.init.zeros_(module.weight)
        return ModuleModel(module, lambda m, rows: nn.functional.softplus(-m(rows)[:, 0]))


@dataclass(frozen=True)
class Bowl:
    """f(x; x_i) = (x - x_i)'A(x - x_i) / 2 with A = diag(j**-fall), from a start that is 1/2 above the minimum, at 0.

    Its n distinct records are 0 in the mean and spread by a tenth of the start. It is 1-smooth, and has no Lipschitz
    constant: L holds while no record's gradient is twice as long as the longest at the start.

    Raises:
        Refusal: no record, no coordinate, or eigenvalues that grow.
    """

    n: int
    d: int
    fall: float = 1.0

    l = 1.0
    gap = 0.5

    def __post_init__(self) -> None:
        whole("n", self.n)
        whole("d", self.d)
        not_negative("fall", self.fall)

    @cached_property
    def a(self) -> Floats:
        """(d,) the diagonal of A."""
        return np.asarray(np.arange(1, self.d + 1) ** -self.fall, dtype=np.float64)

    @cached_property
    def records(self) -> Floats:
        """(n, d)."""
        X = np.random.default_rng(self.d).standard_normal((self.n, self.d))
        return np.asarray((X - X.mean(0)) * 0.1 * self.start)

    @property
    def start(self) -> Floats:
        """(d,) with x'Ax = 1."""
        return np.full(self.d, self.a.sum() ** -0.5)

    @cached_property
    def least(self) -> float:
        """F*, the least mean loss."""
        return float((self.records**2 @ self.a).mean() / 2)

    @cached_property
    def L(self) -> float:
        """Twice the longest record's gradient at the start."""
        return 2 * self.steepest(self.start)

    @property
    def mu(self) -> float:
        """The smallest eigenvalue."""
        return float(self.a.min())

    @property
    def effective_rank(self) -> float:
        """Tr A; its norm is 1."""
        return float(self.a.sum())

    def losses(self, W: Floats) -> Floats:
        """(.., n) losses at each row of ``W``."""
        return self._squares(W, self.a) / 2

    def gradient(self, W: Floats) -> Floats:
        """(.., d) gradients of the mean loss."""
        return self.a * W

    def steepest(self, W: Floats) -> float:
        """The length of the longest record's gradient."""
        return math.sqrt(self._squares(W, self.a**2).max())

    def _squares(self, W: Floats, weights: Floats) -> Floats:
        X = self.records
        return (W**2 @ weights)[..., None] - 2 * (W * weights) @ X.T + X**2 @ weights
