"""The sizes: the paper's is the paper's, and every size names things that exist."""

from dataclasses import asdict

import pytest

from dpzo import Refusal
from dpzo.tasks import TASKS
from reproduce.recipes import Recipe, recipe


def test_the_papers_protocol_is_the_papers() -> None:
    assert asdict(recipe("paper", None)) == {
        "model": "FacebookAI/roberta-large",
        "prompt": None,
        "trainable": ("*",),
        "k": 512,
        "examples_seed": None,
        "at_most": 1000,
        "steps": 10_000,
        "batch_size": 64,
        "step_size": 1e-6,
        "zo_eps": 1e-3,
        "clips": (50, 100, 150, 200, 250, 300, 400),
        "average": False,
        "tasks": ("sst2", "sst5", "snli", "mnli", "rte", "trec"),
        "seeds": (42, 13, 21),
        "epsilons": (6, 2),
        "delta": 1e-5,
        "rescaled": False,
    }
    assert recipe("paper", "elsewhere").model == "elsewhere"
    assert recipe("paper", "bert-tiny").trainable == ("*",)


@pytest.mark.parametrize("size", ["laptop", "tiny", "paper"])
@pytest.mark.parametrize("model", [None, "bert-tiny", "smollm2-135m", "some/folder"])
def test_a_size_exists_for_every_model(size: str, model: str | None) -> None:
    made = recipe(size, model)
    assert isinstance(made, Recipe)
    assert model is None or made.model == model
    assert set(made.tasks) <= set(TASKS)
    assert made.epsilons == (6, 2)
    assert made.delta == 1e-5
    named_for = [
        m for m, start in (("bert-tiny", "bert."), ("smollm2-135m", "model.")) if made.trainable[0].startswith(start)
    ]
    assert made.trainable == ("*",) or named_for == [made.model]


def test_an_unknown_size_is_refused() -> None:
    with pytest.raises(Refusal, match=r"a size out of laptop, paper, tiny; got 'huge'"):
        recipe("huge", None)
