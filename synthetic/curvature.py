"""The effective rank of a Hessian that is only known by its products with vectors, by stochastic Lanczos quadrature.

Each random probe v of signs gives, after m Lanczos steps, m nodes and weights whose weighted sum of f(node) estimates
v' f(H) v, and so, on average over probes, Tr f(H); it is exact for polynomials of degree 2m - 1. The extreme nodes
converge to the extreme eigenvalues from inside.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

from dpzo.errors import Refusal
from synthetic.sweep import Floats


class Curvature(NamedTuple):
    """||H||, Tr |H| with its standard error over probes, and the effective rank r = Tr |H| / ||H||.

    -H' <= H <= H' holds for H' = |H|, and every H' for which it holds has Tr H' >= Tr |H|: that is the product l r of
    Assumption 3.5 at this point, which the rates use. r alone is the least for ||H'|| = ||H||; a bound with a larger
    norm may have a smaller r. ||H|| is estimated from below, the nodes being inside the spectrum. Tr |H| is off by the
    probes, which ``error`` tells, and by the quadrature of |x|, of either sign, which it does not: so r is an estimate
    and no bound.
    """

    norm: float
    trace: float
    error: float

    @property
    def effective_rank(self) -> float:
        """r = Tr |H| / ||H||, which is at least 1, though its estimate may not be."""
        return max(self.trace / self.norm, 1.0)


def curvature(
    product: Callable[[Tensor], Tensor],
    d: int,
    *,
    probes: int = 8,
    steps: int = 30,
    seed: int = 0,
    advance: Callable[[int], object] = lambda steps: None,
) -> Curvature:
    """Estimate the curvature of the symmetric ``product`` v -> H v on R^d; memory for ``steps`` vectors.

    Raises:
        Refusal: no probes or steps.
    """
    if probes < 2 or steps < 2:
        raise Refusal("two probes and two Lanczos steps or more", (probes, steps), "Take 8 probes of 30 steps.")
    generator = torch.Generator().manual_seed(seed)
    traces, norm = [], 0.0
    for _ in range(probes):
        v = torch.randint(0, 2, (d,), generator=generator).float() * 2 - 1
        nodes, weights = lanczos(product, v, min(steps, d), advance)
        traces.append(float(weights @ np.abs(nodes)))
        norm = max(norm, float(np.abs(nodes).max()))
    error = float(np.std(traces, ddof=1) / np.sqrt(probes))
    return Curvature(norm, float(np.mean(traces)), error)


def exact_curvature(
    product: Callable[[Tensor], Tensor], d: int, *, advance: Callable[[int], object] = lambda steps: None
) -> Curvature:
    """The curvature of the symmetric ``product`` v -> H v on R^d by all its d columns, for a small d."""
    columns = []
    for unit in torch.eye(d):
        columns.append(product(unit))
        advance(1)
    H = torch.stack(columns).double().numpy()
    sizes = np.abs(np.linalg.eigvalsh((H + H.T) / 2))
    return Curvature(float(sizes.max()), float(sizes.sum()), 0.0)


def lanczos(
    product: Callable[[Tensor], Tensor], v: Tensor, steps: int, advance: Callable[[int], object] = lambda steps: None
) -> tuple[Floats, Floats]:
    """Nodes and weights of v' f(H) v, by ``steps`` steps with full reorthogonalisation."""
    length = float(v.double().norm())
    basis, diagonal, below = torch.empty(steps, len(v)), [], []
    basis[0] = v / length
    for step in range(steps):
        w = product(basis[step])
        diagonal.append(float(w.double() @ basis[step].double()))
        known = basis[: step + 1]
        for _ in range(2):  # once is not enough in float32
            w = torch.addmv(w, known.T, known @ w, alpha=-1)
        advance(1)
        size = float(w.double().norm())
        below.append(size)
        if size <= 1e-6 * max(*map(abs, diagonal), *below[:-1], 0.0):
            break
        if step + 1 < steps:
            basis[step + 1] = w / size
    nodes, vectors = eigh_tridiagonal(np.array(diagonal), np.array(below[: len(diagonal) - 1]))
    return nodes, length**2 * np.square(vectors[0])
