"""What the lemmas on one step allow, written once, and one step of DPZero computed without sampling."""

import math

import numpy as np

NOISE, WEIGHTS = np.polynomial.hermite_e.hermegauss(24)
WEIGHTS = WEIGHTS / WEIGHTS.sum()
ANGLES = 2 * np.pi * (np.arange(6000) + 0.5) / 6000
PLANE = math.sqrt(2) * np.stack([np.cos(ANGLES), np.sin(ANGLES)], 1)


def allowed(α, slope2, *, l, r, λ, σ, smoothing=None):
    """The most that E F(x') - F(x) may be where nothing is clipped, slope2 = |grad F|^2 (the book's lem-stage-step).

    ``smoothing`` is the term's factor of alpha l^2 lambda^2: r (3 r + 8) / 16, or one of lem-clipped-step.
    """
    if smoothing is None:
        smoothing = r * (3 * r + 8) / 16
    return -α / 4 * slope2 + α * (l * λ) ** 2 * smoothing + α**2 / 2 * l * r * σ**2


def of_dimension(d):
    """The two factors of lem-clipped-step: the paper's and the smaller one."""
    return d**3 / 4, 9 / 16 * d**2


def of_clips(α, *, L, d, P):
    """What clipped steps add to it: alpha R P."""
    return α * L**2 * d * P


def in_the_plane(losses, C, σ, λ, α, x):
    """(E F(x') - F(x), P(some record is clipped)): u by the circle's quadrature, z by Gauss and Hermite.

    ``losses`` maps points (.., 2) to the losses of all records (.., n).
    """
    v = (losses(x + λ * PLANE) - losses(x - λ * PLANE)) / (2 * λ)
    moves = np.clip(v, -C, C).mean(1)[:, None] + σ * NOISE
    after = losses(x - α * moves[..., None] * PLANE[:, None]).mean(2)
    return (after @ WEIGHTS).mean() - losses(x).mean(), (np.abs(v) > C).any(1).mean()


def kinked(a, b):
    """F(x) = sum_j (a_j x_j |x_j| / 2 + b_j x_j): its Hessian is A where all x_j > 0 and -A where all are below 0."""
    return lambda x: (a * x * np.abs(x) / 2 + b * x).sum(-1, keepdims=True)


def first_coordinate(d):
    """(values, weights) of u_1, u uniform on the sphere of radius sqrt(d) in R^d."""
    if d == 1:
        return np.array([-1.0, 1.0]), np.full(2, 0.5)
    width = min(np.pi / 2, 9 / math.sqrt(d))
    t = np.pi / 2 + width * (2 * (np.arange(2000) + 0.5) / 2000 - 1)
    w = np.sin(t) ** (d - 2)
    return math.sqrt(d) * np.cos(t), w / w.sum()


def of_one_coordinate(h, d, σ, λ, α, C=math.inf):
    """E F(x') - F(0) for F(x) = h(x_1) in R^d, one record: effective rank 1 in any dimension."""
    u, w = first_coordinate(d)
    v = np.clip((h(λ * u) - h(-λ * u)) / (2 * λ), -C, C)
    return float(w @ (h(-α * (v[:, None] + σ * NOISE) * u[:, None]) @ WEIGHTS)) - float(h(np.zeros(1))[0])
