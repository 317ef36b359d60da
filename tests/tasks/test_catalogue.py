import pytest

from dpzo.errors import Refusal
from dpzo.tasks import TASKS, get_task

SENTIMENT_5 = ("terrible", "bad", "okay", "good", "great")


def words(name: str) -> dict[str, str]:
    task = TASKS[name]
    return dict(zip(task.labels, task.masked.words, strict=True))


def test_names_are_keys() -> None:
    assert set(TASKS) == {"mr", "sst2", "sst5", "snli", "mnli", "rte", "trec"}
    assert all(task.name == name for name, task in TASKS.items())


def test_the_papers_templates() -> None:
    assert {TASKS[name].masked.template for name in ("mr", "sst2", "sst5")} == {"{text} It was{mask}."}
    assert {TASKS[name].masked.template for name in ("snli", "mnli", "rte")} == {"{text1:chop}?{mask}, {text2:lower}"}
    assert TASKS["trec"].masked.template == "{mask}: {text}"
    assert TASKS["sst2"].causal_prompt().template == "{text} It was"


def test_the_papers_label_words_by_label() -> None:
    assert words("sst2") == words("mr") == {"negative": " terrible", "positive": " great"}
    assert TASKS["sst5"].masked.words == tuple(f" {word}" for word in SENTIMENT_5)
    nli = {"entailment": " Yes", "neutral": " Maybe", "contradiction": " No"}
    assert words("snli") == words("mnli") == nli
    assert words("rte") == {"entailment": " Yes", "not_entailment": " No"}
    assert words("trec") == {
        "DESC": " Description",
        "ENTY": " Entity",
        "ABBR": " Expression",
        "HUM": " Human",
        "LOC": " Location",
        "NUM": " Number",
    }


def test_the_papers_lengths() -> None:
    assert {name: (task.max_length, task.first_limit) for name, task in TASKS.items()} == {
        "mr": (128, 110),
        "sst2": (128, None),
        "sst5": (128, 110),
        "snli": (256, None),
        "mnli": (256, 240),
        "rte": (256, 240),
        "trec": (128, 110),
    }


def test_the_sentiment_prompt_is_a_second_choice() -> None:
    for name in ("mr", "sst2"):
        assert list(TASKS[name].causal) == ["paper", "sentiment"]
        assert TASKS[name].causal_prompt("sentiment").words == (" negative", " positive")


def test_every_label_word_begins_with_the_space_that_its_template_leaves_to_it() -> None:
    for task in TASKS.values():
        for prompt in (task.masked, *task.causal.values()):
            assert all(word[0] == " " and word[1:].isalpha() for word in prompt.words)


@pytest.mark.parametrize("name", ["sst2", "SST-2", "Sst_2"])
def test_a_name_may_be_written_as_in_the_paper(name: str) -> None:
    assert get_task(name) is TASKS["sst2"]


def test_an_unknown_name_is_refused_with_the_names_and_the_nearest() -> None:
    with pytest.raises(Refusal, match=r"mr, sst2, sst5, snli, mnli, rte, trec.*'ssst2'.*Did you mean 'sst2'"):
        get_task("ssst2")
    with pytest.raises(Refusal, match="Choose one of these"):
        get_task("translation")
