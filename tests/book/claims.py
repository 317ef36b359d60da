"""What a page claims: its boxed statements and what must stand beside them, and the numbers that somebody typed."""

import re
from collections.abc import Iterable, Iterator

from tests.book.pages import cells, prose

MARKS = {"theirs", "ours", "open"}
_BOX = r"^(`{3,})\{prf:(theorem|lemma|proposition|corollary|definition|algorithm)\} *(.*)$"
_PARTS = {
    "what it says in words": r"\*\*In words:\*\*",
    "a proof": r"\{prf:proof\}|\*\*Proof:\*\*",
    "a test, by name": r"\*\*Checked:\*\*(?:(?!\n\n).)*?`tests/[\w/]+\.py::test_\w+`",
}


def lacking(text: str) -> Iterator[str]:
    """What boxes lack: a mark; and a statement, before the next box or heading, its words, its proof or its tests."""
    for box in re.finditer(_BOX, text, re.M):
        fence, kind, title = box.groups()
        end = text.index(f"\n{fence}\n", box.end())
        marks = re.search(r"^:class: (.*)$", text[box.end() : end], re.M)
        if not marks or not set(marks[1].split()) <= MARKS:
            yield f"{title}: a mark among {', '.join(sorted(MARKS))}"
        if kind in ("definition", "algorithm"):
            continue
        after = re.compile(rf"{_BOX}|^##", re.M).search(text, end)
        its_own = text[box.start() : after.start() if after else len(text)]
        yield from (f"{title}: {part}" for part, sign in _PARTS.items() if not re.search(sign, its_own, re.S))


_WORDS = (
    "one|two|three|four|five|six|seven|eight|nine|ten|twelve|twenty|fifty|hundred|thousand|half|third|quarter|tenth"
)
_TIMES = r"times|percent|seconds?|minutes?|hours?|days?"
_UNITS = rf"%|(?:{_TIMES}|points?|ms|ns|[KMG]iB|[kMG]B|bytes?|thousand|[mb]illion)\b"
_TYPED = re.compile(
    rf"(?<![\w.,])(?:\d[\d,]*\.\d+(?:\s?(?:{_UNITS}))?|\d[\d,]*\s?(?:{_UNITS})|"
    rf"(?:{_WORDS})s?(?: of)?(?: an?)? (?:{_TIMES})|(?P<whole>\d[\d,]*\d\d))(?!\w)",
    re.I,
)


_NAMES = re.compile(r"\b(?:Lemma|Theorem|Assumptions?|Python|arXiv|November) [\d.]+\d(?: and [\d.]+\d)?")


def typed_numbers(text: str, allowed: Iterable[str] = ()) -> Iterator[str]:
    """Numbers in the words of a page that no cell makes: decimals, numbers with a unit, and numbers of three digits.

    What stands in formulas, code and tables is not looked at. A whole number that a cell of the page begins from is no
    result of it, and neither is a phrase that is ``allowed``.
    """
    words = " ".join(re.sub(r"^\|[^\n]*", "", prose(text), flags=re.M).split())
    for phrase in allowed:
        words = words.replace(phrase, " ")
    words = re.sub(r"\$\$.*?\$\$|(?<!\\)\$[^$]+\$|\]\([^)]*\)|(?:\{[\w:-]+\})?`[^`]*`", " ", words)
    words = _NAMES.sub(" ", words)
    given = {number.replace("_", "") for number in re.findall(r"\d[\d_]*", cells(text))}
    for found in _TYPED.finditer(words):
        if not found["whole"] or found[0].replace(",", "") not in given:
            yield f"{found[0]}: .. {words[max(0, found.start() - 50) : found.end() + 30]} .."
