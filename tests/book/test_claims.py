"""Every boxed statement has a mark, words, a proof and a test; and what the text calls a result, a cell has made."""

import pytest
import yaml

from tests.book.claims import lacking, typed_numbers
from tests.book.pages import BOOK, sources

PAGES = sources()
TYPED = yaml.safe_load((BOOK / "typed_numbers.yml").read_text("utf-8"))
BY_PAGE = pytest.mark.parametrize("page", PAGES)


@BY_PAGE
def test_every_statement_has_a_mark_words_a_proof_and_a_test(page):
    assert not list(lacking(PAGES[page]))


BOX = "````{prf:lemma} One\n:label: lem-one\n:class: theirs ours\n\n```{math}\nx\n```\n````\n"
WORDS, PROOF = "\n**In words:** x.\n", "\n````{prf:proof}\nx\n````\n"
TESTS = "\n**Checked:** by hand, and\n`tests/a.py::test_a`.\n"


@pytest.mark.parametrize(
    ("text", "lacks"),
    [
        (BOX + WORDS + PROOF + TESTS, []),
        (BOX.replace("theirs ours", "open") + TESTS + WORDS + "\n**Proof:** there.\n", []),
        ("```{prf:algorithm} One\n:class: ours\n\nx\n```\n", []),
        ("```{prf:algorithm} One\n:label: alg-one\n\nx\n```\n", ["One: a mark"]),
        (BOX.replace("theirs ours", "theirs, mostly") + WORDS + PROOF + TESTS, ["One: a mark"]),
        (BOX + PROOF + TESTS, ["One: what it says"]),
        (BOX + WORDS + TESTS, ["One: a proof"]),
        (BOX + WORDS + PROOF, ["One: a test"]),
        (BOX + WORDS + PROOF + TESTS.replace("::test_a", ""), ["One: a test"]),
        (BOX + WORDS + PROOF + "\n**Checked:** by hand.\n\nSee `tests/a.py::test_a`.\n", ["One: a test"]),
        (BOX + WORDS + PROOF + "\n### Two\n" + TESTS, ["One: a test"]),
        (BOX + WORDS + PROOF + BOX.replace("One", "Two") + WORDS + PROOF + TESTS, ["One: a test"]),
    ],
)
def test_what_a_statement_lacks_is_seen(text, lacks):
    assert [told[: len(lack)] for told, lack in zip(lacking(text), lacks, strict=True)] == lacks


@BY_PAGE
def test_the_numbers_in_the_text_come_from_cells(page):
    """Or are allowed in book/typed_numbers.yml, which says why; no permit is kept beyond its use."""
    allowed = [phrase for phrases in TYPED.get(page, {}).values() for phrase in phrases]
    assert not list(typed_numbers(PAGES[page], allowed))
    words = " ".join(PAGES[page].split())
    assert [phrase for phrase in allowed if phrase not in words] == []


def test_permits_are_for_pages_and_for_reasons_that_exist():
    assert set(TYPED) <= set(PAGES)
    assert {reason for reasons in TYPED.values() for reason in reasons} <= {"input", "paper", "definition", "model"}


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("It took {glue:text}`a` minutes, $1.5$ or\n\n$$\n2.5\n$$\n\n| 3.5 % |\n\n`4.5`", 0),
        ("Two runs of 64 records, in part 3, Figure 12.", 0),
        ("In 1,500 steps.\n\n```{code-cell} python3\nsteps = 1_500\n```", 0),
        ("In 1,500 steps.\n\n```{code-cell} python3\nsteps = 15\n```", 1),
        ("It won by 1.2 points.\n\n```{code-cell} python3\n1.2\n```", 1),
        ("A loss of 0.35", 1),
        ("7 times, 8 %, 9 MiB, and 4 million", 4),
        ("```{dropdown} Why\nHalf an hour, twenty times, a quarter of a second\n```", 3),
        ("It prints 118 and 166.", 2),
        ("```{note}\nx\n```\n\nIn 2.5 s\n\n```{note}\nx\n```", 1),
        ("Sometimes two points of a plane, one page of minutes.", 0),
    ],
)
def test_a_typed_number_is_seen(text, count):
    assert len(list(typed_numbers(text))) == count
    assert not list(typed_numbers("It costs 2.48 times more", ["2.48 times"]))
