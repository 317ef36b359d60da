"""DP-ZOPO: DP-ZOSO on the share of the coordinates that a score without data picks.

    DP-ZOPO. Input: as DP-ZOSO, and for each stage a share r_s
    1  for s = 1 .. S
    2      m = the best r_s d coordinates by a score that no data enter, of the starting weights (static) or of x
    3      lines 2 to 7 of DP-ZOSO, with directions u_1 .. u_P over the coordinates of m alone

The score looks at weights that were released, so masks cost no privacy, however often they are made again. A step's
own work and memory go with r_s d. The frozen coordinates keep their bits.

Source: Liu et al. 2024 (arXiv 2402.07818), as far as its abstract and code tell. As released, the code's masked path
changes no weight; its score, SynFlow's objective by random differences, of which it keeps the smallest, is the option
``Pruning(score="authors", largest=False)``.
"""

from collections.abc import Sequence

from dpzo.accounting import Relation
from dpzo.algorithms.dp_zoso import step
from dpzo.directions import Direction, GaussianDirection
from dpzo.masks import Pruning
from dpzo.mechanisms import GaussianMechanism
from dpzo.plan import Plan, Unit, sampler_of, with_noise
from dpzo.stages import Stage

__all__ = ["dp_zopo", "step"]


def dp_zopo(
    *,
    n: int,
    stages: Sequence[Stage],
    clip_threshold: float,
    relation: Relation,
    pruning: Pruning = Pruning(),  # noqa: B008  (frozen and stateless)
    directions: int = 1,
    batch_size: int | None = None,
    noise_multiplier: float | None = None,
    target_epsilon: float | None = None,
    target_delta: float | None = None,
    direction: Direction = GaussianDirection(),  # noqa: B008
    unit: Unit = "record",
) -> Plan:
    """Plan a run whose stages move the share ``keep`` of the coordinates; the rest is as for ``dp_zoso``.

    A derivative along a random share of the coordinates is sqrt(keep) of the full one, along a well chosen one more: it
    wants another step size and clip. Tune them apart.

    Raises:
        Refusal: as ``dp_zoso``.
    """
    plan = Plan(
        algorithm="dp-zopo",
        n=n,
        sampler=sampler_of(batch_size, n),
        mechanism=GaussianMechanism(clip_threshold, noise_multiplier=1.0, directions=directions),
        direction=direction,
        stages=tuple(stages),
        relation=relation,
        unit=unit,
        pruning=pruning,
    )
    return with_noise(plan, noise_multiplier, target_epsilon, target_delta)
