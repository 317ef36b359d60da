"""What a statement says of stages, and of noise that differs between them."""

from dataclasses import replace

import pytest

from dpzo import Pruning, Relation, Stage, dp_zopo, dp_zoso
from dpzo.mechanisms import GRID
from dpzo.noise import total_variation
from dpzo.report import Statement, statement
from dpzo.wording import draw_distance

STAGES = (Stage(4, 0.1, 1e-2, proximal=0.5, average=True), Stage(2, 0.05, 1e-3, clip_threshold=0.25))
SAME = {"n": 20, "clip_threshold": 0.5, "noise_multiplier": 2.0, "relation": Relation.ADD_REMOVE}


def test_each_stage_is_told_and_comes_back():
    plan = dp_zopo(
        stages=[replace(STAGES[0], keep=0.1), STAGES[1]], pruning=Pruning(score="magnitude", strategy="dynamic"), **SAME
    )
    made = statement(plan, 1e-3, private=True)
    text = made.markdown()
    for part in (
        "4 steps of size 0.1 at radius 0.01, pulled to their start by 0.5, on 0.1 of the coordinates",
        "ending at their mean; then ",
        "2 steps of size 0.05 at radius 0.001",
        "the largest magnitude scores of all, which see no data (dynamic)",
        "with a C of their own, and noise in proportion to it, stages 2: C = 0.25",
    ):
        assert part in text
    assert Statement.from_json(made.json()) == made


def test_noise_of_its_own_is_told_and_its_distance_is_the_largest():
    """Kills: the distance of the plan's noise where a stage has more."""
    even = dp_zoso(stages=STAGES, **SAME)
    uneven = replace(even, stages=(STAGES[0], replace(STAGES[1], noise_scale=4.0)))
    assert "stage by stage, 1, 4" in statement(uneven, 1e-3, private=True).markdown()
    assert draw_distance(uneven) == total_variation(8 * GRID) > draw_distance(even)
    assert statement(uneven, 1e-3, private=True).epsilon < statement(even, 1e-3, private=True).epsilon


@pytest.mark.parametrize("P", [1, 3])
def test_the_number_of_scalars_is_told(P):
    assert (
        "3 numbers for each step"
        in statement(dp_zoso(stages=STAGES, directions=P, **SAME), 1e-3, private=True).markdown()
    ) == (P == 3)
