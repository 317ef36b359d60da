"""Accountants against exact deltas of short runs, made without them: see ``make.py``."""

import json

import pytest
from dp_accounting import GaussianDpEvent, LaplaceDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent

from dpzo.accounting import Relation, applicable, delta, epsilon
from tests.golden.make import FILE, Gaussian, Laplace, divergence, replaced

ROWS = json.loads(FILE.read_text())["rows"]
KINDS = {"gaussian": GaussianDpEvent, "laplace": LaplaceDpEvent}
BY_ROW = pytest.mark.parametrize(("kind", "multiplier", "rate", "steps", "relation", "eps", "exact"), ROWS)


def read(kind, multiplier, rate, steps, relation, eps, exact):
    one = KINDS[kind](float(multiplier))
    one = one if rate == "1" else PoissonSampledDpEvent(float(rate), one)
    return SelfComposedDpEvent(one, steps), Relation(relation), float(eps), float(exact)


@BY_ROW
def test_pld_is_above_the_exact_epsilon_by_its_rounding_at_most(kind, multiplier, rate, steps, relation, eps, exact):
    """What it kills is run below."""
    event, among, at, true = read(kind, multiplier, rate, steps, relation, eps, exact)
    assert at - 1e-9 <= epsilon(event, true, among, "pld") <= at + 1e-4
    assert true * (1 - 1e-9) <= delta(event, at, among, "pld") <= true * (1 + 1e-4)


@BY_ROW
def test_every_other_accountant_is_above_too(kind, multiplier, rate, steps, relation, eps, exact):
    event, among, at, true = read(kind, multiplier, rate, steps, relation, eps, exact)
    names = set(applicable(event, among)) - {"pld"}
    for name in names:
        assert epsilon(event, true, among, name) >= at * (1 - 1e-9)
        assert delta(event, at, among, name) >= true * (1 - 1e-9)
    if "closed-form" in names:
        assert epsilon(event, true, among, "closed-form") == pytest.approx(at, rel=1e-9)
        assert delta(event, at, among, "closed-form") == pytest.approx(true, rel=1e-9)


def test_zero_out_costs_what_add_remove_does():
    for row in ROWS[::7]:
        event, among, at, _ = read(*row)
        if among is Relation.ADD_REMOVE:
            assert delta(event, at, Relation.ZERO_OUT) == delta(event, at, among)


def test_the_file_is_what_the_program_makes():
    laws = {"gaussian": Gaussian, "laplace": Laplace}
    for kind, multiplier, rate, steps, relation, eps, exact in ROWS:
        if steps == 1 and rate != "1":
            if relation == "replace-one":
                found = replaced(multiplier, rate, float(eps))
            else:
                found = max(divergence(laws[kind](multiplier), rate, 1, float(eps), adding) for adding in (False, True))
            assert float(found) == pytest.approx(float(exact), rel=1e-12)


@pytest.mark.parametrize("mutant", ["multiplier 2 % high", "rate 1 % low", "a step too few"])
def test_mutants_are_caught_below_the_exact_epsilon(mutant):
    for kind, multiplier, rate, steps, relation, eps, exact in ROWS:
        if kind == "gaussian" and rate == "0.1" and steps == 2:
            m, q, t = float(multiplier), float(rate), steps
            m, q, t = {"m": (1.02 * m, q, t), "r": (m, 0.99 * q, t), "a": (m, q, t - 1)}[mutant[0]]
            event = SelfComposedDpEvent(PoissonSampledDpEvent(q, GaussianDpEvent(m)), t)
            assert epsilon(event, float(exact), Relation(relation), "pld") < float(eps) - 1e-4
