"""Theorem 3's promise on the paper's quadratic, in small: no dimension, only the effective rank.

Zhang et al. 2024, Theorems 2 and 3: alpha = 1 / (4 l (r + 2)); T = n (r+2) eps / (4 sqrt(r log(e + eps/delta))) for
DPZero and n (r+2) eps / (d sqrt(r log(..))) for DPGD-0th. C is what clips next to nothing: a multiple of L for the
scalar, L d for the vector. Seeds are fixed and the gaps are factors.
"""

import math

import torch

from dpzo import Relation, Streams, dpgd_zeroth, dpzero, run
from dpzo.models.quadratic import Quadratic

N, EPSILON, DELTA = 1000, 2.0, 1e-6


def problem(d):
    """(model, data, r, L): spectrum 1/i, so r grows as log d; data N(1, 1); L measured at the start."""
    generator = torch.Generator().manual_seed(d)
    spectrum = 1 / torch.arange(1, d + 1, dtype=torch.float32)
    data = 1 + torch.randn(N, d, generator=generator)
    lipschitz = float((spectrum * data).norm(dim=1).quantile(0.95))
    return Quadratic(spectrum, torch.zeros(d)), data, float(spectrum.sum()), lipschitz


def final_gradient(algorithm, d, seed=1):
    model, data, r, lipschitz = problem(d)
    log = math.log(math.e + EPSILON / DELTA)
    steps = N * (r + 2) * EPSILON / math.sqrt(r * log)
    plan = algorithm(
        n=N,
        steps=max(1, int(min(steps / (4 if algorithm is dpzero else d), 400))),
        step_size=1 / (4 * (r + 2)),
        zo_eps=1e-2,
        clip_threshold=3 * lipschitz if algorithm is dpzero else lipschitz * d,
        target_epsilon=EPSILON,
        target_delta=DELTA,
        relation=Relation.REPLACE_ONE,
    )
    start = float(model.gradient(data).norm())
    for _ in run(plan, model, data, Streams.not_private(seed, seed)):
        pass
    return float(model.gradient(data).norm()), start


def test_dpzero_beats_dpgd_zeroth_in_200_dimensions():
    ours, start = final_gradient(dpzero, 200)
    theirs, _ = final_gradient(dpgd_zeroth, 200)
    assert ours < 0.3 * start
    assert theirs > 3 * ours


def test_dpzero_hardly_sees_the_dimension():
    small, large = (sum(final_gradient(dpzero, d, seed)[0] for seed in (1, 2, 3)) for d in (50, 1000))
    assert large <= 2 * small
