"""One file per method; ``STEPS`` is the table that the loop looks a plan's algorithm up in."""

from collections.abc import Callable

from dpzo.algorithms import dp_aggzo, dpgd_zeroth, dpzero, mezo

STEPS: dict[str, Callable[..., tuple[float, ...]]] = {
    "dpzero": dpzero.step,
    "dpgd-0th": dpgd_zeroth.step,
    "mezo": mezo.step,
    "dp-aggzo": dp_aggzo.step,
}
