"""What Gaussian releases cost when a query is a vector, or depends on earlier releases: by integration, at sigma = 1.

delta(epsilon) = E max(0, 1 - exp(epsilon - L)), L the privacy loss in the first world (the book's thm-delta), is
compared with the library's delta of the one Gaussian that the book's statements name.
"""

import math

import numpy as np
import pytest
from dp_accounting import ComposedDpEvent, GaussianDpEvent
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from dpzo import Relation
from dpzo.accounting import delta
from dpzo.mechanisms import GaussianMechanism, GaussianVectorMechanism

EPSILONS = (0.0, 0.5, 2.0)
Y = np.linspace(-14, 14, 28_001)  # what the first of two releases may be; its density is below 1e-20 outside


def of_one(moved, epsilon):
    """The library's delta of one release of unit noise that a record moves by ``moved``."""
    return delta(GaussianDpEvent(1 / moved), epsilon, Relation.ADD_REMOVE, "closed-form")


def above(epsilon, moved):
    """E max(0, 1 - exp(epsilon - L)) for L ~ N(moved^2 / 2, moved^2), elementwise; epsilon may be negative."""
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        formula = norm.cdf(moved / 2 - epsilon / moved) - np.exp(epsilon) * norm.cdf(-moved / 2 - epsilon / moved)
    return np.where(moved < 1e-9, np.maximum(0, -np.expm1(np.minimum(epsilon, 0))), formula)


def of_two(first, second, epsilon):
    """Delta of two releases: the first is moved by ``first``, the second by ``second(y)`` where y was released."""
    loss = first * Y - first**2 / 2
    return float(np.trapezoid(norm.pdf(Y, first) * above(epsilon - loss, np.abs(second(Y))), Y))


SHAPES = st.sampled_from([np.sign, np.tanh, np.cos, lambda y: 1.0 * (y > 0.5), lambda y: np.exp(-(y**2)), np.ones_like])


@given(st.floats(0.1, 2), st.floats(0.1, 2), SHAPES)
def test_no_adaptive_query_costs_more(first, most, shape):
    """The second query may use the first release as it likes; at its most in either sign, the cost is exactly that."""
    event = ComposedDpEvent([GaussianDpEvent(1 / first), GaussianDpEvent(1 / most)])
    for epsilon in EPSILONS:
        exact = delta(event, epsilon, Relation.ADD_REMOVE, "closed-form")
        assert of_two(first, lambda y: most * shape(y), epsilon) <= exact * (1 + 1e-6) + 1e-12
        assert of_two(first, lambda y: most * np.where(y > 0.3, 1, -1), epsilon) == pytest.approx(exact, rel=1e-5)


def test_a_bound_that_holds_on_average_only_is_none():
    """A query that is moved by sqrt(2) half of the time, else by 0, has mean square 1 and costs more than 1 does."""
    assert of_two(1e-6, lambda y: math.sqrt(2) * (y > 0), 2.0) > 2 * of_one(1.0, 2.0)


@given(st.floats(0.2, 3), st.floats(-2, 2), st.floats(0.2, 3), st.floats(0.05, 1.5), SHAPES, st.floats(0.3, 3))
def test_correlated_noise_costs_what_its_encoder_moves(a, b, c, angle, shape, S):
    """Y = M G + W with M = ((a, 0), (b, c)): rows of G that keep |M Delta| at S or less, the second as y tells it to.

    Kills: the sensitivity |Delta| for |M Delta|.
    """
    own = S * math.cos(angle) / a  # how far the record moves the first row of G

    def cost(shape, epsilon):
        second = lambda y: (S * math.sin(angle) * shape(y) - b * own) / c  # noqa: E731
        return of_two(a * own, lambda y: b * own + c * second(y), epsilon)

    for epsilon in EPSILONS:
        assert cost(shape, epsilon) <= of_one(S, epsilon) * (1 + 1e-6) + 1e-12
        assert cost(lambda y: np.where(y > 0, 1, -1), epsilon) == pytest.approx(of_one(S, epsilon), rel=1e-4)


@pytest.mark.parametrize("angle", [0.0, 0.4, math.pi / 4])
@pytest.mark.parametrize("moved", [0.5, 2.0])
def test_a_vector_costs_what_its_length_does(moved, angle):
    """P - e^epsilon Q integrated over the plane: neither the direction of the move nor the dimension is in it."""
    x = np.linspace(-9, 11, 1201)
    first, second = np.meshgrid(x, x)
    p = norm.pdf(first, moved * math.cos(angle)) * norm.pdf(second, moved * math.sin(angle))
    q = norm.pdf(first) * norm.pdf(second)
    for epsilon in EPSILONS:
        found = np.trapezoid(np.trapezoid(np.maximum(0, p - math.exp(epsilon) * q), x), x)
        assert found == pytest.approx(of_one(moved, epsilon), abs=2e-4)
    assert GaussianVectorMechanism(1.0, 1 / moved).event() == GaussianMechanism(1.0, 1 / moved).event()
