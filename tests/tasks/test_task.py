from collections.abc import Mapping
from typing import Any

import pytest

from dpzo.errors import Refusal
from dpzo.tasks import Prompt, Task

MASKED = Prompt("{text} It was{mask}.", (" bad", " good"))
CAUSAL = Prompt("{text} It was", (" bad", " good"))
GOOD: Mapping[str, Any] = {
    "name": "demo",
    "title": "Demo",
    "labels": ("neg", "pos"),
    "masked": MASKED,
    "causal": {"first": CAUSAL, "second": Prompt("{text} So", (" no", " yes"))},
    "max_length": 128,
}


def test_a_good_task_and_its_defaults() -> None:
    task = Task(**GOOD)
    assert task.n_texts == 1
    assert task.first_limit is None
    assert task.codes == {"neg": 0, "pos": 1, "0": 0, "1": 1}
    assert task.causal_prompt() is CAUSAL
    assert task.causal_prompt("second").template == "{text} So"


def test_integers_mean_nothing_where_files_disagree_about_them() -> None:
    assert Task(**GOOD, numbered=False).codes == {"neg": 0, "pos": 1}


def test_an_unknown_causal_prompt_is_refused_with_the_known_names() -> None:
    with pytest.raises(Refusal, match="first, second"):
        Task(**GOOD).causal_prompt("third")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"name": "SST-2"}, "lower-case letters and digits"),
        ({"name": ""}, "lower-case letters and digits"),
        ({"labels": ("neg",)}, "distinct labels"),
        ({"labels": ("neg", "neg")}, "distinct labels"),
        ({"labels": ("neg", "mid", "pos")}, "3 words"),
        ({"masked": CAUSAL}, "in the masked prompt"),
        ({"causal": {"x": MASKED}}, "no mask in the causal prompt 'x'"),
        ({"causal": {}}, "a causal prompt"),
        ({"causal": {"x": Prompt("{text} It was", (" a", " b", " c"))}}, "2 words"),
        ({"causal": {"x": Prompt("{text1} {text2} So", (" a", " b"))}}, r"1 text\(s\)"),
        ({"max_length": 0}, "max_length"),
        ({"first_limit": 0}, "first_limit"),
        ({"first_limit": 128}, "first_limit"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change: dict[str, Any], why: str) -> None:
    with pytest.raises(Refusal, match=why):
        Task(**{**GOOD, **change})
