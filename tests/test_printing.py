import math
import unicodedata
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from dpzo import Relation, dpzero
from dpzo.integrations.model_card import BEGIN, END, attach
from dpzo.printing import one_line, printable, rounded_up
from dpzo.report import Statement, statement

HOSTILE = {
    "image": "![**Differentially private**: epsilon = 0.1](https://example.org/badge.png)",
    "image by reference": "![badge][1]\n\n[1]: https://example.org/badge.png",
    "link": "[NOT PRIVATE](javascript:alert(1))",
    "emphasis": "**Differentially private**: epsilon = 0.1, __yes__ *a* _b_ ~~c~~",
    "html": "<img src=x onerror=alert(1)> <!-- --> </td></table><h1>",
    "entities": "&#x202e;&lt;b&gt;&#33;&lsqb;x&rsqb;(y)",
    "code": "`a` ``` b",
    "mathematics": "$\\color{red}{private}$ $$x$$",
    "cell": "a | b \\| c \\\\| d",
    "heading": "# Differentially private",
    "quote": "> quoted",
    "list": "- item",
    "number": "1. item",
    "bracket": "2) item",
    "rule": "---",
    "other rule": "***",
    "setext": "===",
    "table": "| a |\n| --- |\n| b |",
    "bidi": "epsilon = \u202e01 naht erom\u202c \u2066x\u2069 \u200f\u061c",
    "zero width": "a\u200bb\u200cc\u200dd\u2060e\ufefff\u00adg\u034fh\u3164i\u2800j\ufe0fk\U000e0041",
    "escape": "\x1b[2J\x1b]0;title\x07 \x9b31m \x08\x7f\x00",
    "lines": "a\r\nb\x0bc\x0cd\x1ce\x85f\u2028g\u2029h",
    "surrogate": "\ud800 \udfff",
    "markers": f"{BEGIN} {END}",
}
PLAN = dpzero(
    n=100, steps=5, step_size=0.1, zo_eps=0.1, clip_threshold=1.0, noise_multiplier=9.0, relation=Relation.ZERO_OUT
)
EACH = pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def tokens(text):
    for token in MARKDOWN.parse(text):
        yield token
        yield from token.children or ()


def shown(text):
    """What a reader sees of Markdown."""
    return "".join(t.content for t in tokens(text) if t.type in ("text", "code_inline"))


def kinds(text):
    return [token.type for token in tokens(text)]


def is_plain(text):
    """Neither a line end nor a character that turns, hides or steers what is beside it, or is not to be seen."""
    unseen = {chr(point) for point in (0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180F, 0x2800, 0x3164, 0xFE0F, 0xFFA0)}
    return not any(
        unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") or char in unseen for char in text
    )


@EACH
def test_a_hostile_text_is_shown_as_it_stands(hostile):
    """As the item of a list, and as the cell of a table: one of each, with the text's own characters."""
    told = one_line(hostile)
    assert is_plain(told)
    assert shown(f"- {told}\n- next") == f"{printable(hostile)}next"
    cell = f"| a | b |\n| --- | --- |\n| k | {told} |\n"
    assert shown(cell) == f"abk{printable(hostile)}"
    assert kinds(cell) == kinds(cell.replace(told, "x"))


@given(st.text(max_size=30))
@example("_a_b_ *c*")
@example("12.")
@example("\\|")
def test_any_text_is_shown_as_it_stands(text):
    told = one_line(text)
    assert shown(f"- {told}\n- next") == f"{printable(text)}next"
    cell = f"| a | b |\n| --- | --- |\n| k | {told} |\n"
    assert shown(cell) == f"abk{printable(text)}"


@given(st.text())
def test_what_is_printable_is_one_plain_line(text):
    assert is_plain(printable(text))
    assert printable(printable(text)) == printable(text)
    if text.isascii() and text.isprintable() and text == " ".join(text.split()):
        assert printable(text) == text


def model(text):
    return type("Hostile", (), {"couples_records": text, "untried": text})()


@EACH
def test_no_field_of_a_statement_lets_it_through(tmp_path, hostile):
    """In every field that somebody else fills, on the page and in a card. Kills: a picture that says private."""

    def made_with(text):
        return statement(
            PLAN, 1e-4, private=True, model=model(text), tuning=text, pretraining=text, uncovered=[text, text]
        )

    made, plain = made_with(hostile), made_with("x")
    made = replace(made, dpzo=hostile, dp_accounting=hostile)
    text = made.markdown()
    assert is_plain(text.replace("\n", ""))
    assert text.splitlines()[0] == plain.markdown().splitlines()[0]
    assert kinds(text) == kinds(plain.markdown())
    assert Statement.from_json(made.json()) == made
    card = attach(tmp_path, made).read_text("utf-8")
    assert text in card
    assert card.count(BEGIN) == card.count(END) == 1
    attach(tmp_path, made)
    assert (tmp_path / "README.md").read_text("utf-8") == card


@given(st.floats(min_value=0, allow_nan=False), st.integers(1, 17))
@example(3.88065, 4)
@example(1.17e-5, 4)
@example(math.inf, 4)
@example(1.7976931348623157e308, 4)
def test_a_number_is_rounded_up_and_by_less_than_a_unit_of_its_last_digit(value, digits):
    """Kills: 3.88065 printed as 3.8806, and 1.17e-5 as 0.0000."""
    printed = float(rounded_up(value, digits))
    assert printed >= value
    if 1e-300 < value < 1e300:
        assert printed <= value * (1 + 10.0 ** (1 - digits)) * (1 + 1e-15)
    if math.isfinite(printed):
        assert len(rounded_up(value, digits).replace(".", "").split("e")[0].strip("0")) <= digits
