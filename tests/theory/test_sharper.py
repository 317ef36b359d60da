"""What the book proves beyond the paper of single steps: DPZero is a projection of DPGD-0th; rare clips; one step.

The theorem without the dimension has tests of its own, in ``test_clipped.py``.
"""

import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import special
from scipy.special import expit

from dpzo import ModuleModel
from dpzo.directions import SphereDirection, ahead
from dpzo.estimators import two_point
from dpzo.mechanisms import GaussianMechanism, GaussianVectorMechanism, on_grid
from dpzo.randomness import SeededEntropy
from dpzo.theory.quadratic import Law
from dpzo.theory.spectra import of
from tests.theory.steps import allowed, in_the_plane, of_clips, of_dimension

SIGNS = [np.array(u) for u in product([-1.0, 1.0], repeat=2)]
CIRCLE = [math.sqrt(2) * np.array([math.cos(θ), math.sin(θ)]) for θ in np.pi * np.arange(6) / 3]  # to degree 5


def test_the_smoothing_bound_is_tight_in_every_dimension():
    """f = sum_j x_j |x_j| / 2 at 0: its bias over the bound is sqrt(d) E|s_1|, from 1 down to sqrt(2 / pi)."""
    d = np.arange(1, 2000)
    mean = np.exp(special.gammaln(d / 2) - special.gammaln((d + 1) / 2)) / math.sqrt(math.pi)  # E|s_1|
    assert mean[:3] == pytest.approx([1, 2 / math.pi, 1 / 2])
    share = np.sqrt(d) * mean
    assert (np.diff(share) < 0).all()
    assert share[-1] == pytest.approx(math.sqrt(2 / math.pi), rel=1e-3)
    # In the plane by quadrature: E v u with v = (lambda / 2) sum_j u_j |u_j|. Kills: the paper's bound taken for ours.
    θ = 2 * np.pi * (np.arange(4096) + 0.5) / 4096
    u = math.sqrt(2) * np.stack([np.cos(θ), np.sin(θ)], 1)
    bias = np.linalg.norm((0.5 * (u * np.abs(u)).sum(1)) @ u / len(u))
    assert bias == pytest.approx(share[1] * 2**1.5 / 3, rel=1e-5)
    assert bias < 0.95 * 2**1.5 / 2


def test_dpzeros_release_is_the_projection_of_dpgd_zeroths():
    """u'R / d: the same clipped sum, the same noise, the same event. Kills: C and not C sqrt(d) for the vector."""
    d, C, multiplier = 7, 0.8, 3.0
    v = np.array([0.3, -2.0, 5.0, 1.1])
    u = SphereDirection().draw({"x": torch.zeros(d)}, 5)
    scalar, vector = GaussianMechanism(C, multiplier), GaussianVectorMechanism(C * math.sqrt(d), multiplier)
    assert vector.event() == scalar.event()
    whole = on_grid(v, C).sum() * C / 2**24
    drawn = [float(scalar.release(v, SeededEntropy(seed))) for seed in range(3)]
    along = [float(vector.release(v, SeededEntropy(seed), u.norm())) / u.norm() for seed in range(3)]
    assert along == pytest.approx(drawn, rel=1e-6)
    noise = [float(vector.release(v[:0], SeededEntropy(seed), u.norm())) / u.norm() for seed in range(3)]
    assert np.subtract(along, noise) == pytest.approx([whole] * 3, rel=1e-6)
    wrong = GaussianVectorMechanism(C, multiplier)
    assert float(wrong.release(v, SeededEntropy(0), u.norm())) / u.norm() != pytest.approx(drawn[0], rel=0.1)
    dense = u.dense()["x"].double().numpy()
    variance = (vector.noise_multiplier * vector.clip_threshold) ** 2 * dense @ dense / d**2
    assert variance == pytest.approx((multiplier * C) ** 2, rel=1e-6)


@pytest.mark.parametrize("directions", [SIGNS, CIRCLE], ids=["signs", "circle"])
def test_the_vectors_noise_does_d_times_the_harm(directions):
    """Noise alone, from the least point of a quadratic: covariances over all sequences of directions, counted in full.

    DPGD-0th adds noise on every axis, DPZero along u; the deviations are the library's at one event. Kills: the same
    threshold for both (a ratio of 1), C d for C sqrt(d).
    """
    C, multiplier, α, d = 0.8, 3.0, 0.1, 2
    scalar, vector = GaussianMechanism(C, multiplier), GaussianVectorMechanism(C * math.sqrt(d), multiplier)
    assert vector.event() == scalar.event()
    σ, per_axis = (m.noise_multiplier * m.clip_threshold for m in (scalar, vector))
    A = np.diag([1.0, 0.3])
    harm = {}
    for name, added in (("ours", lambda u: σ**2 * np.outer(u, u)), ("naive", lambda u: per_axis**2 * np.eye(d))):
        found = []
        for us in product(directions, repeat=3):
            S = np.zeros((d, d))
            for u in us:
                move = np.eye(d) - α * np.outer(u, u @ A)
                S = move @ S @ move.T + α**2 * added(u)
            found.append(np.trace(A @ S) / 2)
        harm[name] = np.mean(found)
    assert harm["naive"] == pytest.approx(d * harm["ours"], rel=1e-9)
    law = Law(of(A.diagonal()), "rademacher" if directions is SIGNS else "sphere")
    assert harm["ours"] == pytest.approx(law.trajectory(α, 3, np.zeros(d)).loss(σ)[-1], rel=1e-9)


@pytest.mark.parametrize("λ", [1e-3, 0.02])
def test_a_step_that_clips_is_as_rare_as_the_lemma_says(λ):
    """P(some |v_i| > C) <= 2 n exp(-C_0^2 / 2), C = C_0 + l lambda d / 2, by the library's directions and estimates.

    A hundred logistic records along the axes, each slope nearly a coordinate of u; the directions are public, nothing
    is left to chance. Kills: one record's bound for all; an exponent of C_0^2 / 1.2. (Smoothing: test_lemma_c2.py.)
    """
    n = d = 100
    module = torch.nn.Linear(d, 1, bias=False)
    torch.nn.init.constant_(module.weight, -8.0)
    model = ModuleModel(module, lambda m, rows: torch.nn.functional.softplus(-m(rows)[:, 0]))
    us = ahead(SphereDirection(), model.params, range(4000))
    largest = np.array([np.abs(two_point(model, torch.eye(d), u, λ)).max() for (u,) in us])
    for C_0 in (3.0, 3.4, 3.8):
        share = (largest > C_0 + λ * d / 8).mean()  # l = 1/4
        assert share <= 2 * n * math.exp(-(C_0**2) / 2)
        if λ < 0.01:
            assert share > 2 * math.exp(-(C_0**2) / 2)
            assert share > 2 * n * math.exp(-(C_0**2) / 1.2)


def one_step(C, σ, λ, α, x, X):
    """(E F(x') - F(x), grad F, P(some record is clipped)) of logistic losses: u and z integrated, no sampling."""
    change, clipped = in_the_plane(lambda w: np.logaddexp(0, -w @ X.T), C, σ, λ, α, x)
    return change, -(expit(-x @ X.T)[:, None] * X).mean(0), clipped


@given(st.floats(0.05, 1.2), st.floats(0, 2), st.floats(0.01, 1), st.floats(0.1, 1), st.floats(-2, 2), st.floats(-2, 2))
def test_one_step_with_clipping(C, σ, λ, share, x1, x2):
    """The one-step inequality with its term for clipped steps, by quadrature on a logistic loss in the plane.

    That each of its terms is needed, and how much of it: test_one_step.py, from the same ``allowed`` and ``of_clips``.
    """
    X = np.array([[1.0, 0.0], [0.6, 0.8], [-0.5, 0.5], [0.9, -0.2]])
    l, d, L = 0.25, 2, 1.0
    H = np.linalg.eigvalsh(X.T @ X / (4 * len(X)))
    r = max(float(H.sum()) / l, 1.0)
    α = share / (4 * l * (r + 2))
    change, gradient, clipped = one_step(C, σ, λ, α, np.array([x1, x2]), X)
    for smoothing in (None, *of_dimension(d)):
        bound = allowed(α, gradient @ gradient, l=l, r=r, λ=λ, σ=σ, smoothing=smoothing)
        assert change <= bound + of_clips(α, L=L, d=d, P=clipped) + 1e-9


def test_without_its_clipping_term_the_inequality_is_false():
    """Two records pull apart and the larger pull is clipped: the loss rises where the gradient says it falls."""
    X = np.array([[3.0, 0.0]] + [[-0.7, 0.0]] * 3)  # three weak records against a strong one
    change, gradient, clipped = one_step(0.3, 0.0, 1e-3, 0.01, np.zeros(2), X)
    assert clipped > 0.5
    assert change > 0
    assert gradient @ gradient > 0
