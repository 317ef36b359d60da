"""One file per method; the loop looks up a plan's algorithm here, and what fits it."""

from collections.abc import Callable

from dpzo.algorithms import dp_aggzo, dp_zopo, dp_zoso, dpgd_zeroth, dpzero, mezo
from dpzo.errors import Refusal
from dpzo.mechanisms import (
    EachGaussianMechanism,
    GaussianMechanism,
    GaussianVectorMechanism,
    LaplaceMechanism,
    PlainSum,
)
from dpzo.plan import Plan

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


def check(plan: Plan) -> None:
    """Refuse a plan that no algorithm runs: what cannot be run is not stated either.

    Raises:
        Refusal: an unknown algorithm, or a mechanism, directions, stages or pruning that it does not take.
    """
    if plan.algorithm not in STEPS:
        raise Refusal(f"an algorithm among {', '.join(STEPS)}", repr(plan.algorithm), "Choose one.")
    if not isinstance(plan.mechanism, fits := MECHANISMS[plan.algorithm]):
        names = " or ".join(kind.__name__ for kind in fits)
        raise Refusal(f"{names} for {plan.algorithm}", type(plan.mechanism).__name__, "Use the algorithm's own plan.")
    if (K := plan.mechanism.directions) > 1 and plan.algorithm not in SEVERAL_DIRECTIONS:
        raise Refusal(f"one direction a step for {plan.algorithm}", K, "Plan dp_aggzo or dp_zoso for several.")
    if plan.algorithm not in STAGEWISE and any(stage.proximal for stage in plan.stages):
        raise Refusal(f"stages that do not pull, for {plan.algorithm}", "a proximal weight", "Plan dp_zoso.")
    if plan.algorithm not in PRUNED and plan.pruning is not None:
        raise Refusal(f"no pruning for {plan.algorithm}", plan.pruning, "Plan dp_zopo.")
