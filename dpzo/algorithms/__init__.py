"""One file per method; the loop looks up a plan's algorithm here, and which mechanisms fit it."""

from collections.abc import Callable

from dpzo.algorithms import dp_aggzo, dpgd_zeroth, dpzero, mezo
from dpzo.mechanisms import (
    EachGaussianMechanism,
    GaussianMechanism,
    GaussianVectorMechanism,
    LaplaceMechanism,
    PlainSum,
)

MECHANISMS: dict[str, tuple[type, ...]] = {
    "dpzero": (GaussianMechanism, LaplaceMechanism),
    "dpgd-0th": (GaussianVectorMechanism,),
    "mezo": (PlainSum,),
    "dp-aggzo": (GaussianMechanism, EachGaussianMechanism),
}
STEPS: dict[str, Callable[..., tuple[float, ...]]] = {
    "dpzero": dpzero.step,
    "dpgd-0th": dpgd_zeroth.step,
    "mezo": mezo.step,
    "dp-aggzo": dp_aggzo.step,
}
