"""Four ways to account, each an upper bound on epsilon under the relation asked for; closed forms are exact.

PLD is this package's own (``dpzo.accounting.pld``): dp-accounting's composes by a plain FFT, whose rounding went below
the truth by up to 5 % for long runs at a small delta. RDP is dp-accounting's.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import dp_accounting as dpa
from dp_accounting import DpEvent, GaussianDpEvent, LaplaceDpEvent
from dp_accounting.rdp import RdpAccountant
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtri

from dpzo.accounting.parts import Part, mu_of, parts_of
from dpzo.accounting.pld import pld_covers, pld_delta, pld_epsilon
from dpzo.accounting.relation import Relation, check_delta
from dpzo.accounting.support import THEIRS, refuse_sampled_laplace, supported
from dpzo.errors import Refusal
from dpzo.sampling import BallsAndBinsDpEvent

_ORDERS = (*(1 + k / 10 for k in range(1, 100)), *range(11, 65), 80, 96, 128, 192, 256, 384, 512, 1024)
Parts = tuple[Part, ...]


class Accountant(NamedTuple):
    """Epsilon at a delta, and delta at an epsilon, of the parts of an event."""

    epsilon: Callable[[Parts, float, Relation], float]
    delta: Callable[[Parts, float, Relation], float]


# --- closed form: Gaussians on everything ----------------------------------------------------------------------------


def _mu(parts: Parts, relation: Relation) -> float:
    mu = mu_of(parts, relation)
    if mu is None:
        came = ", ".join(_name(part) for part in parts)
        raise Refusal("full-batch Gaussians alone", came, "Use the pld accountant for sampled or other mechanisms.")
    return mu


def _gaussian_epsilon(parts: Parts, delta: float, relation: Relation) -> float:
    return epsilon_of_mu(_mu(parts, relation), delta)


def _gaussian_delta(parts: Parts, epsilon: float, relation: Relation) -> float:
    return math.exp(_log_delta_of_mu(_mu(parts, relation), epsilon))


def epsilon_of_mu(mu: float, delta: float) -> float:
    """Epsilon of a mu-Gaussian-DP release at ``delta``, rounded up by 1e-12 of it; infinite beyond double precision."""
    target = math.log(delta)
    if _log_delta_of_mu(mu, 0.0) <= target:
        return 0.0
    most = mu * (mu / 2 - float(ndtri(delta)))  # there Phi(mu/2 - eps/mu) alone is delta
    if mu > 1e6:
        return most  # an upper bound, less than 1e-11 of it above; beyond, nothing is left of mu/2 - eps/mu
    return float(brentq(lambda at: _log_delta_of_mu(mu, at) - target, 0.0, most, xtol=1e-300, rtol=1e-13)) * (1 + 1e-12)


def mu_for(epsilon: float, delta: float) -> float:
    """The mu whose Gaussian-DP release has about ``epsilon`` at ``delta``."""
    z, target = float(ndtri(delta)), math.log(delta)
    least = 2 * epsilon / (math.hypot(z, math.sqrt(2 * epsilon)) - z)  # there Phi(mu/2 - eps/mu) alone is delta
    high = least * 2
    while _log_delta_of_mu(high, epsilon) < target:
        high *= 2
    return float(brentq(lambda mu: _log_delta_of_mu(mu, epsilon) - target, least, high, xtol=1e-300, rtol=1e-9))


def _log_delta_of_mu(mu: float, epsilon: float) -> float:
    # Balle and Wang 2018, Theorem 8: delta = Phi(mu/2 - eps/mu) - e^eps Phi(-mu/2 - eps/mu).
    first, second = float(log_ndtr(mu / 2 - epsilon / mu)), epsilon + float(log_ndtr(-mu / 2 - epsilon / mu))
    return first + math.log(max(-math.expm1(min(second - first, 0.0)), 1e-300))


# --- pure: Laplace alone, delta = 0 ----------------------------------------------------------------------------------


def _pure(parts: Parts, relation: Relation) -> float:
    """The sum of the steps' pure epsilons: e0 = sensitivity / scale on everything, ln(1 + q (e^e0 - 1)) on a sample.

    Let P0 be a step's law without the record and P1 its law with it, e^-e0 <= P1/P0 <= e^e0. Sampled at rate q, the
    step's law with the record in the data is (1-q) P0 + q P1, and

        ((1-q) P0 + q P1) / P0 <= 1 + q (e^e0 - 1),    P0 / ((1-q) P0 + q P1) <= 1 / (1 - q (1 - e^-e0)).

    The first bound is the larger one: (1 + q (e^e0 - 1)) (1 - q (1 - e^-e0)) = 1 + q (1-q) (e^e0 + e^-e0 - 2) >= 1.
    Laplace noise meets both, and the others in the batch only shift P0 and P1 alike. Under add/remove and zero-out P0
    has the record gone or at 0; under replace-one both laws have it, which this does not cover.
    """
    total = []
    for part in parts:
        if not isinstance(part.mechanism, LaplaceDpEvent):
            raise Refusal("Laplace noise alone for pure epsilon", _name(part), "Use the pld accountant.")
        refuse_sampled_laplace(part, relation)
        alone = relation.sensitivity / part.mechanism.noise_multiplier
        # ln(1 + q (e^a - 1)) = a + ln(q + (1-q) e^-a), without the overflow; exact for small a by the first form.
        if alone < 1:
            each = math.log1p(part.rate * math.expm1(alone))
        else:
            each = alone + math.log(part.rate + (1 - part.rate) * math.exp(-alone))
        total.append(part.count * each)
    return math.fsum(total)


def _pure_epsilon(parts: Parts, delta: float, relation: Relation) -> float:
    return _pure(parts, relation)


def _pure_delta(parts: Parts, epsilon: float, relation: Relation) -> float:
    # No pure-epsilon release is worse than randomised response, whose delta is (e^pure - e^eps) / (e^pure + 1).
    pure = _pure(parts, relation)
    return -math.expm1(epsilon - pure) / (1 + math.exp(-pure)) if epsilon < pure else 0.0


# --- RDP -------------------------------------------------------------------------------------------------------------


def _renyi(parts: Parts, relation: Relation) -> RdpAccountant:
    # dp-accounting's RDP takes multipliers as relative to the sensitivity whatever the relation, where its PLD doubles
    # them under replace-one: state the sensitivity ourselves. Its fractional orders add up the absolute values of an
    # alternating series, so below order 3 they are loose, and safe.
    event = dpa.ComposedDpEvent([_above_rounding(part.restated(relation)).event for part in parts])
    with supported(relation):
        return RdpAccountant(_ORDERS, THEIRS[relation]).compose(event)


def _above_rounding(part: Part) -> Part:
    # A step's divergence, about (rate / multiplier)^2 orders, drowns in rounding where that is 1e-16: it came out
    # negative, and epsilon 0. A higher rate and less noise cost more, so the answer stays an upper bound.
    mechanism = part.mechanism
    if not isinstance(mechanism, GaussianDpEvent):
        return part
    sigma = min(mechanism.noise_multiplier, 1e7)
    if part.rate < 1 and part.rate < 1e-5 * sigma:
        sigma = min(sigma, 1e5)
        return Part(GaussianDpEvent(sigma), min(1.0, 1e-5 * sigma), part.count)
    return Part(GaussianDpEvent(sigma), part.rate, part.count)


def _rdp_epsilon(parts: Parts, delta: float, relation: Relation) -> float:
    return float(_renyi(parts, relation).get_epsilon(delta))


def _rdp_delta(parts: Parts, epsilon: float, relation: Relation) -> float:
    return float(_renyi(parts, relation).get_delta(epsilon))


# --- all of them -----------------------------------------------------------------------------------------------------

ACCOUNTANTS = {
    "pld": Accountant(pld_epsilon, pld_delta),
    "rdp": Accountant(_rdp_epsilon, _rdp_delta),
    "closed-form": Accountant(_gaussian_epsilon, _gaussian_delta),
    "pure": Accountant(_pure_epsilon, _pure_delta),
}


def choose(event: DpEvent, accountant: str | None, relation: Relation) -> str:
    """Return the accountant's name: the one asked for, or else the exact closed form where it applies and PLD."""
    if accountant is None:
        parts = parts_of(event)
        binned = relation is not Relation.REPLACE_ONE and any(
            isinstance(part.mechanism, BallsAndBinsDpEvent) for part in parts
        )
        return "pld" if binned or mu_of(parts, relation) is None else "closed-form"
    if accountant not in ACCOUNTANTS:
        raise Refusal(f"one of the accountants {', '.join(ACCOUNTANTS)}", repr(accountant), "Choose one.")
    return accountant


def applicable(event: DpEvent, relation: Relation) -> tuple[str, ...]:
    """The names of the accountants that cover ``event`` under ``relation``, the tightest first.

    >>> applicable(dpa.PoissonSampledDpEvent(0.1, dpa.LaplaceDpEvent(1.0)), Relation.ADD_REMOVE)
    ('pld', 'pure')
    """
    parts = parts_of(event)
    laplace = [part for part in parts if isinstance(part.mechanism, LaplaceDpEvent)]
    by_pld = pld_covers(parts, relation)
    covers = {
        "closed-form": mu_of(parts, relation) is not None,
        "pld": by_pld,
        "rdp": RdpAccountant(_ORDERS, THEIRS[relation]).supports(event),
        "pure": len(laplace) == len(parts) and (by_pld or relation is not Relation.REPLACE_ONE),
    }
    first = choose(event, None, relation)
    return tuple(sorted((name for name, does in covers.items() if does), key=lambda name: name != first))


def epsilon(event: DpEvent, delta: float, relation: Relation, accountant: str | None = None) -> float:
    """The epsilon of ``event`` at ``delta``: an upper bound (pld, rdp, pure) or exact (closed-form).

    The pure accountant bounds epsilon at delta = 0, and so at any delta; no other takes delta = 0.

    >>> round(epsilon(dpa.GaussianDpEvent(1.0), 1e-5, Relation.ADD_REMOVE), 3)
    4.377
    >>> round(epsilon(dpa.GaussianDpEvent(2.0), 1e-5, Relation.REPLACE_ONE), 3)
    4.377
    >>> epsilon(dpa.LaplaceDpEvent(0.5), 0.0, Relation.ADD_REMOVE, "pure")
    2.0
    """
    check_delta(delta, accountant=accountant)
    return _epsilon(parts_of(event), delta, relation, choose(event, accountant, relation))


@lru_cache(maxsize=4096)
def _epsilon(parts: Parts, delta: float, relation: Relation, accountant: str) -> float:
    if not all(part.is_private for part in parts):
        return math.inf
    return ACCOUNTANTS[accountant].epsilon(parts, delta, relation) if parts else 0.0


def delta(event: DpEvent, epsilon: float, relation: Relation, accountant: str | None = None) -> float:
    """The delta of ``event`` at ``epsilon``, the inverse of ``epsilon``: an upper bound, or exact (closed-form).

    >>> round(delta(dpa.GaussianDpEvent(1.0), 1.0, Relation.ADD_REMOVE), 4)
    0.1269
    """
    if isinstance(epsilon, bool) or not isinstance(epsilon, int | float) or not 0 <= epsilon < math.inf:
        raise Refusal("a finite epsilon of 0 or more", epsilon, "Choose one.")
    parts, name = parts_of(event), choose(event, accountant, relation)
    if not all(part.is_private for part in parts):
        return 1.0
    return ACCOUNTANTS[name].delta(parts, float(epsilon), relation) if parts else 0.0


def _name(part: Part) -> str:
    name = type(part.mechanism).__name__.removesuffix("DpEvent")
    return f"{name} at rate {part.rate:g}" if part.rate < 1 else name
