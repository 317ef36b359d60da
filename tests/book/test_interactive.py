"""The book's slider and its calculator, each in a page of its own; in a browser with ``-m slow``."""

import re

import matplotlib.pyplot as plt
import pytest
from dp_accounting import GaussianDpEvent, SelfComposedDpEvent

import dpzo
from dpzo import Relation, accounting
from tests.book.browser import calculated, moved, needs_chromium
from tests.book.pages import BOOK, module

MOVES = {Relation.ADD_REMOVE: 1, Relation.REPLACE_ONE: 2}


def figures(*values):
    drawn = {}
    for value in values:
        drawn[value], ax = plt.subplots(figsize=(3, 2))
        ax.set_title(value)
    return drawn


@pytest.fixture
def slid(tmp_path):
    """A page with a slider over three frames that opens with the last one."""
    shown = module("frames").slider("a & b", dict(figures("1", "2", "<3>")), ["<3>", "1"])
    page = tmp_path / "page.html"
    style = (BOOK / "_static/book.css").read_text("utf-8")
    page.write_text(f"<!doctype html><meta charset=utf-8><style>{style}</style>{shown.data}", "utf-8")
    return page


@pytest.mark.slow
@needs_chromium
def test_a_slider_shows_one_frame_at_a_time(slid):
    (found,) = moved(slid)
    assert found["control"]
    assert found["drawn"]
    assert found["opened"] == [2]
    assert found["shown"] == [[0], [1], [2]]
    assert found["told"] == ["a & b = 1", "a & b = 2", "a & b = <3>"]
    assert found["printed"] == {"shown": [0, 2], "control": False}


@pytest.mark.slow
@needs_chromium
def test_a_slider_that_does_not_move_is_seen(slid):
    slid.write_text(slid.read_text("utf-8").replace('"input", show', '"no such event", show'), "utf-8")
    assert moved(slid)[0]["shown"] == [[2], [2], [2]]


def test_without_a_script_one_frame_shows_and_no_control(slid):
    text = slid.read_text("utf-8")
    assert ["hidden" in tag for tag in re.findall(r"<img [^>]*>", text)] == [True, True, False]
    assert ["printed" in tag for tag in re.findall(r"<img [^>]*>", text)] == [True, False, True]
    assert "<label hidden>" in text


@pytest.mark.parametrize(("values", "printed"), [(["1"], ["1"]), (["1", "2"], ["3"]), (["1", "2"], [])])
def test_a_slider_refuses_what_it_cannot_show(values, printed):
    with pytest.raises(dpzo.Refusal, match="printed"):
        module("frames").slider("a", figures(*values), printed)


@pytest.mark.slow
@needs_chromium
def test_the_calculator_against_the_library():
    """From 1 step to a million, from an epsilon far below 1 to one that nobody should want."""
    asked = [
        (steps, delta, relation, epsilon)
        for steps, delta, relation in [
            (1, 1e-5, Relation.ADD_REMOVE),
            (1000, 1e-5, Relation.REPLACE_ONE),
            (10_000, 1e-12, Relation.ADD_REMOVE),
            (1_000_000, 1e-3, Relation.ADD_REMOVE),
        ]
        for epsilon in (0.01, 0.5, 4, 100)
    ]
    fields = [{"steps": t, "delta": d, "moves": MOVES[r], "epsilon": e} for t, d, r, e in asked]
    there = calculated(BOOK / "calculator.html", fields)
    back = calculated(
        BOOK / "calculator.html", [f | {"noise": at["noise"]} for f, at in zip(fields, there, strict=True)]
    )
    for (steps, delta, relation, epsilon), one, other in zip(asked, there, back, strict=True):
        run = SelfComposedDpEvent(GaussianDpEvent(float(one["noise"])), steps)
        delivers = accounting.epsilon(run, delta, relation)
        assert delivers <= epsilon * (1 + 1e-7)  # its noise is rounded up
        assert delivers == pytest.approx(epsilon, rel=2e-4)
        assert float(other["epsilon"]) == pytest.approx(delivers, rel=1e-4)
        assert f"standard deviation {one['noise']} C" in one["told"]


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize(
    ("field", "value", "wants"),
    [
        ("steps", "1.5", "whole number"),
        ("steps", "0", "from 1"),
        ("delta", "", "1e-5"),
        ("delta", "one in a million", "one in a million"),
        ("delta", "0", "0.5"),
        ("epsilon", "-1", "epsilon: a number"),
        ("noise", "0", "noise multiplier: a number"),
    ],
)
def test_the_calculator_says_what_it_wants(field, value, wants):
    """And works again when it gets it."""
    found, mended = calculated(BOOK / "calculator.html", [{field: value}, {field: "3" if field != "delta" else "0.01"}])
    assert found["bad"] == [field]
    assert wants in found["told"]
    assert "" in (found["epsilon"], found["noise"])
    assert not mended["bad"]
    assert float(mended["epsilon"]) > 0
    assert float(mended["noise"]) > 0


@pytest.mark.slow
@needs_chromium
def test_noise_beyond_need_costs_nothing():
    (found,) = calculated(BOOK / "calculator.html", [{"steps": "1", "delta": "0.5", "noise": "1000"}])
    assert float(found["epsilon"]) == 0
