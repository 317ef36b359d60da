"""The ways to a target: each answers or says why not, and a reason is computed or not given."""

import math
import re
from dataclasses import replace

import pytest
from scipy import integrate, stats

from dpzo import Refusal, Relation
from dpzo.plan import sampler_of
from dpzo.planning import Unreached, Way, best, describe, reached, reason, ways

ADD = Relation.ADD_REMOVE


def of(found, noise, accountant, full):
    (way,) = [w for w in found if (w.noise, w.accountant, w.full) == (noise, accountant, full)]
    return way


def test_where_one_accountant_refuses_the_others_answer():
    """Kills: RDP's refusal of a small delta for the refusal of the whole table."""
    found = list(ways(1000, 1000, 0.01, 1e-12, ADD, 16))
    assert of(found, "Gaussian", "closed-form", True).deviation == pytest.approx(18310.1, rel=1e-4)
    assert of(found, "Gaussian", "pld", False).deviation == pytest.approx(293.07, rel=1e-3)
    for noise in ("Gaussian", "Laplace"):
        way = of(found, noise, "rdp", True)
        assert isinstance(way, Unreached)
        assert "delta = 1e-12 is too small" in way.why
        left = float(re.search("leaves epsilon = ([0-9.]+)", way.why)[1])
        loud = describe(
            1000,
            1000,
            sampler_of(None, 1000),
            replace(of(found, noise, "pld", True).mechanism, noise_multiplier=1e6),
            ADD,
        )
        assert 0.01 < loud.epsilon(1e-12, accountant="rdp") <= left
    assert best(found, ADD, full=False).accountant == "pld"
    assert "needs 1.41 times as much" in reason(best(found, ADD, full=True), found)


def test_where_no_way_leads_to_the_target_the_reasons_are_told():
    found = list(ways(1000, 1000, 0.01, 1e-12, ADD))
    none = [
        way if isinstance(way, Unreached) else Unreached(way.noise, way.full, way.accountant, "why") for way in found
    ]
    assert not reached(none)
    with pytest.raises(Refusal, match="Gaussian by rdp: noise of 1,000,000 C still leaves"):
        best(none, ADD, full=True)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"target_epsilon": math.inf}, "Choose a finite value"),
        ({"target_epsilon": 0.0}, "Choose a value above zero"),
        ({"target_delta": 0.01}, "below 1/n"),
        ({"steps": 0}, "whole number"),
        ({"batch_size": 101}, "batch size"),
    ],
)
def test_numbers_of_no_run_are_refused_as_a_whole(bad, words):
    good = {"n": 100, "steps": 10, "target_epsilon": 2.0, "target_delta": 1e-5, "relation": ADD}
    with pytest.raises(Refusal, match=words):
        list(ways(**good | bad))


def variances(deviation, rate):
    """chi^2 of a step of Gaussian and of Laplace noise at one deviation on the sum, by integration."""

    def chi(law):
        def excess(x):
            return math.exp(2 * law.logpdf(x - 1) - law.logpdf(x)) - 2 * law.pdf(x - 1) + law.pdf(x)

        return rate**2 * integrate.quad(excess, -20 * deviation, 20 * deviation, points=[0, 1], limit=400)[0]

    return chi(stats.norm(scale=deviation)), chi(stats.laplace(scale=deviation / math.sqrt(2)))


@pytest.mark.parametrize(("epsilon", "batch"), [(6.0, 16), (2.0, 100)])
def test_a_cause_is_what_the_losses_variance_is(epsilon, batch):
    """Kills: a cause that was written down beforehand."""
    found = list(ways(1000, 1000, epsilon, 1e-5, ADD, batch))
    chosen = best(found, ADD, full=False)
    told = reason(chosen, found)
    gaussian, laplace = variances(chosen.deviation, batch / 1000)
    ratio = gaussian / laplace if chosen.noise == "Laplace" else laplace / gaussian
    assert ratio > 1
    stated = float(re.search("has ([0-9.]+) times the variance", told)[1])
    assert stated == pytest.approx(math.log1p(max(gaussian, laplace)) / math.log1p(min(gaussian, laplace)), rel=5e-3)
    assert f"at a deviation of {chosen.deviation:.3g} C" in told


@pytest.mark.parametrize(
    ("n", "steps", "epsilon", "delta"), [(1000, 1, 0.1, 1e-9), (1000, 1, 2.0, 1e-4), (50, 3, 1.0, 1e-3)]
)
def test_where_no_cause_can_be_computed_none_is_given(n, steps, epsilon, delta):
    """Kills: "noise near C" at 14 C, and "many small losses" in a single step."""
    found = list(ways(n, steps, epsilon, delta, ADD))
    chosen = best(found, ADD, full=True)
    assert re.fullmatch(r".* batches\. (Gaussian|Laplace) noise needs [0-9.]+ times as much\.", reason(chosen, found))
    assert isinstance(chosen, Way)
