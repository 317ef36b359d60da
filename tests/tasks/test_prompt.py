from string import Formatter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpzo.errors import Refusal
from dpzo.tasks import TASKS, Example, Piece, Prompt

ONE = Prompt("{text} It was{mask}.", (" terrible", " great"))
TWO = Prompt("{text1:chop}?{mask}, {text2:lower}", (" Yes", " No"))
PROMPTS = [p for task in TASKS.values() for p in (task.masked, *task.causal.values())]

HOSTILE = ["{mask}", "{text}", "{", "}}", "{0}", "[MASK]", "<mask>", "%s", "a\nb", "\u2028", "İstanbul", "", "é"]
texts = st.text(min_size=1) | st.lists(st.sampled_from(HOSTILE) | st.text(max_size=5), min_size=1).map("".join)


def test_single_text_as_in_lm_bff() -> None:
    assert ONE.render(Example(("a gem",), 1)) == (
        Piece("text0", "a gem"),
        Piece("literal", " It was"),
        Piece("mask", ""),
        Piece("literal", "."),
    )


def test_pair_as_in_lm_bff() -> None:
    assert TWO.render(Example(("It rained.", "The road is wet."), 0)) == (
        Piece("text0", "It rained"),
        Piece("literal", "?"),
        Piece("mask", ""),
        Piece("literal", ","),
        Piece("text1", " the road is wet."),
    )


def test_chop_takes_one_character_whatever_it_is_and_lower_one_letter() -> None:
    pieces = TWO.render(Example(("He left", "NASA said so"), 0))
    assert (pieces[0].string, pieces[4].string) == ("He lef", " nASA said so")
    assert TWO.render(Example(("x", "É"), 0))[0].string == ""
    assert TWO.render(Example(("x", "É"), 0))[4].string == " é"


def test_a_space_before_a_text_goes_with_the_text_and_before_the_mask_does_not() -> None:
    prompt = Prompt("Say  {text}\nso {mask}", ("yes", "no"))
    assert prompt.render(Example(("x",), 0)) == (
        Piece("literal", "Say "),
        Piece("text0", " x"),
        Piece("literal", "\nso "),
        Piece("mask", ""),
    )


def test_doubled_braces_are_characters() -> None:
    assert Prompt("{{{text}}} is", (" a", " b")).render(Example(("x",), 0)) == (
        Piece("literal", "{"),
        Piece("text0", "x"),
        Piece("literal", "}"),
        Piece("literal", " is"),
    )


def unchanged(template: str) -> str:
    return "".join(literal for literal, *_ in Formatter().parse(template))


@given(text=texts)
def test_any_text_survives_in_a_prompt_without_transforms(text: str) -> None:
    for prompt in (p for p in PROMPTS if p.n_texts == 1):
        pieces = prompt.render(Example((text,), 0))
        (rendered,) = [p.string for p in pieces if p.kind == "text0"]
        space = rendered[: len(rendered) - len(text)]
        assert rendered == space + text
        assert space in ("", " ")
        others = "".join(p.string for p in pieces if p.kind == "literal")
        assert len(others) + len(space) == len(unchanged(prompt.template))


@given(first=texts, second=texts)
def test_any_pair_survives_up_to_its_transforms_and_never_touches_the_template(first: str, second: str) -> None:
    plain = Prompt("{text1}\n{text2}\nSo:", (" a", " b")).render(Example((first, second), 0))
    assert [p.string for p in plain if p.kind.startswith("text")] == [first, second]
    pieces = TWO.render(Example((first, second), 0))
    assert pieces[0].string == first[:-1]
    assert pieces[4].string[1:] == second[:1].lower() + second[1:]
    assert [p for p in pieces if p.kind in ("literal", "mask")] == [
        Piece("literal", "?"),
        Piece("mask", ""),
        Piece("literal", ","),
    ]


@given(text=texts, other=texts)
def test_the_literal_pieces_are_the_same_for_all_records(text: str, other: str) -> None:
    for prompt in PROMPTS:
        shapes = [
            [p if p.kind in ("literal", "mask") else p.kind for p in prompt.render(Example((t,) * prompt.n_texts, 0))]
            for t in (text, other)
        ]
        assert shapes[0] == shapes[1]


def test_masked_and_n_texts() -> None:
    assert ONE.masked
    assert TWO.masked
    assert (ONE.n_texts, TWO.n_texts) == (1, 2)
    assert not Prompt("{text} It was", (" a", " b")).masked


def test_the_number_of_texts_must_fit() -> None:
    with pytest.raises(Refusal, match=r"expected 1 text\(s\).*got 2 text\(s\)"):
        ONE.render(Example(("a", "b"), 0))
    with pytest.raises(Refusal, match=r"expected 2 text\(s\).*got 1 text\(s\)"):
        TWO.render(Example(("a",), 0))


@pytest.mark.parametrize(
    "template",
    [
        "no field",
        "{text} {text} was",
        "{text1} alone",
        "{text2} alone",
        "{text} with {text2}",
        "{text} It was{mask} or{mask}",
        "{text} open {",
        "{text} close }",
        "{text} and {name}",
        "{text.__class__} was",
        "{text!r} was",
        "{text:upper} was",
        "{text} was{mask:chop}",
        "{} was",
        "{0} was",
    ],
)
def test_bad_templates_are_refused(template: str) -> None:
    with pytest.raises(Refusal):
        Prompt(template, (" a", " b"))


@pytest.mark.parametrize("words", [(), (" a",), (" a", " a"), (" a", ""), (" a", " ")])
def test_bad_words_are_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(Refusal, match="distinct label words"):
        Prompt("{text} It was", words)


@pytest.mark.parametrize("template", ["{text} It was ", "{text} It was {mask}.", "{text}\n{mask}"])
def test_two_spaces_before_a_label_word_are_refused(template: str) -> None:
    with pytest.raises(Refusal, match="one space before a label word"):
        Prompt(template, (" a", " b"))
    Prompt(template, ("a", "b"))
