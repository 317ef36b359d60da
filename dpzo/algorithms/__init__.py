"""One file per method; the loop looks up a plan's algorithm here, and what fits it."""

from collections.abc import Callable

from dpzo.algorithms import dp_aggzo, dp_zopo, dp_zoso, dpgd_zeroth, dpzero, mezo
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
    "dp-zoso": (GaussianMechanism,),
    "dp-zopo": (GaussianMechanism,),
}
STEPS: dict[str, Callable[..., tuple[float, ...]]] = {
    "dpzero": dpzero.step,
    "dpgd-0th": dpgd_zeroth.step,
    "mezo": mezo.step,
    "dp-aggzo": dp_aggzo.step,
    "dp-zoso": dp_zoso.step,
    "dp-zopo": dp_zopo.step,
}
SEVERAL_DIRECTIONS = {"dp-aggzo", "dp-zoso", "dp-zopo"}
STAGEWISE = {"dp-zoso", "dp-zopo"}  # their steps pull towards an anchor
PRUNED = {"dp-zopo"}
