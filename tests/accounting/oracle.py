"""Delta of a composition without any grid or FFT: one contour integral of its moments, in double precision.

With M(z) = E_P e^(z L) of a step, and any theta > 0,

    delta(eps) = 1 / (2 pi i) * integral over z = theta + i s of  prod M(z)^T e^(-z eps) / (z (1 + z)) dz,

because (1 - e^(eps - S))_+ is that integral of e^(z (S - eps)) / (z (1 + z)). At the saddle point nothing cancels: the
integrand falls like a Gaussian from its peak, and the trapezoidal rule, for M too, is exact to the last digits. M - 1
is summed as such, so that its logarithm keeps its relative precision over a million steps.
"""

import numpy as np
from scipy.optimize import brentq

X = np.linspace(-24, 24, 2401)
NORMAL = np.exp(-(X**2) / 2) / np.sqrt(2 * np.pi) * (X[1] - X[0])


def log_sampled(l, q):
    """ln(1 - q + q e^l), without overflow."""
    if q == 1:
        return l
    large, small = np.maximum(l, 30.0), np.minimum(l, 30.0)
    return np.where(l > 30, large + np.log(q) + np.log1p((1 - q) / q * np.exp(-large)), np.log1p(q * np.expm1(small)))


class Law:
    """A loss at the points ``losses`` with P-weights ``weights``."""

    def __init__(self, losses, weights):
        self.losses, self.weights = losses[weights > 0], weights[weights > 0]

    def log_moment(self, z):
        powers = np.multiply.outer(self.losses, z)
        if (most := float(powers.real.max())) > 600:  # far from 1: here the sum itself is as good
            return most + np.log(self.weights @ np.exp(powers - most))
        return np.log1p(self.weights @ np.expm1(powers) + (self.weights.sum() - 1))


def gaussian(mu, q, direction):
    """A Poisson-sampled Gaussian, the points chosen so that P's part with the record is covered too."""
    if direction == "replace":
        parts = [(1 - q, X), (q, X + mu)]
        return _mixed([(w, log_sampled(x * mu - mu**2 / 2, q) - log_sampled(-x * mu - mu**2 / 2, q)) for w, x in parts])
    if direction == "add":
        return _mixed([(1.0, -log_sampled(X * mu - mu**2 / 2, q))])
    parts = [(1 - q, X), (q, X + mu)]
    return _mixed([(w, log_sampled(x * mu - mu**2 / 2, q)) for w, x in parts])


def _mixed(parts):
    parts = [(w, losses) for w, losses in parts if w > 0]
    return Law(np.concatenate([losses for _, losses in parts]), np.concatenate([w * NORMAL for w, _ in parts]))


def mixture(parts):
    """Laws with weights."""
    return Law(np.concatenate([law.losses for _, law in parts]), np.concatenate([w * law.weights for w, law in parts]))


def laplace(e, q, direction):
    """A Poisson-sampled Laplace release: two atoms, and a smooth part on Gauss-Legendre points."""
    x, w = np.polynomial.legendre.leggauss(400)
    l = x * e  # F0 has the density exp(-(e + l) / 2) / 4 of l between the atoms, F1 exp(-(e - l) / 2) / 4
    f0 = np.concatenate([[0.5], np.exp(-(e + l) / 2) / 4 * w * e, [np.exp(-e) / 2]])
    f1 = np.concatenate([[np.exp(-e) / 2], np.exp(-(e - l) / 2) / 4 * w * e, [0.5]])
    losses = log_sampled(np.concatenate([[-e], l, [e]]), q)
    return Law(-losses, f0) if direction == "add" else Law(losses, (1 - q) * f0 + q * f1)


def delta(parts, epsilon, widths=14):
    """Delta at ``epsilon`` of ``parts``: (law, count) each. For laws whose sum has no large atom.

    The integral goes to ``widths`` of its peak: to more of them where atoms make the integrand come back, which at 14
    leaves 1e-7 of the delta of a thousand unsampled Laplace releases.
    """

    def log_moment(z):
        return sum(count * law.log_moment(z) for law, count in parts)

    def tilted(theta):
        mean, variance = 0.0, 0.0
        for law, count in parts:
            log = theta * law.losses
            q = law.weights * np.exp(log - log.max())
            q /= q.sum()
            mean += count * (each := q @ law.losses)
            variance += count * (q @ (law.losses - each) ** 2)
        return mean, variance

    scale = 1 / np.sqrt(tilted(0.0)[1])
    low, high = 1e-4 * scale, scale
    while tilted(high)[0] < epsilon and high < 100 * scale:
        high *= 1.5
    if tilted(low)[0] < epsilon < tilted(high)[0]:
        high = brentq(lambda t: tilted(t)[0] - epsilon, low, high, rtol=1e-6)
    theta = max(high if tilted(low)[0] < epsilon else low, 0.3 * scale)
    peak, reach = float(log_moment(theta)), widths / np.sqrt(tilted(theta)[1])
    previous = np.inf
    for points in np.array([150, 300, 600, 1200, 2400]) * max(1, widths // 20):  # doubled until two sums agree
        s = (np.arange(points) + 0.5) * (reach / points)
        z = theta + 1j * s
        value = np.concatenate([log_moment(chunk) for chunk in np.array_split(z, max(1, points // 250))])
        total = float((np.exp(value - peak - 1j * s * epsilon) / (z * (1 + z))).real.sum()) * (reach / points) / np.pi
        if abs(total - previous) < 1e-9 * abs(total):
            return total * np.exp(peak - theta * epsilon)
        previous = total
    raise ArithmeticError("the contour integral did not settle")
