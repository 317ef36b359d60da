"""A prompt: a fixed template around a record's texts, rendered piece by piece.

The template is language, the record is data. They are never joined into one string here, so that a model
adapter can shorten a text without touching the template, and so that braces, field names or a mask token
written inside a record stay what they are: plain text.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from string import Formatter
from typing import Literal, NamedTuple

from dpzo.errors import Refusal

Kind = Literal["literal", "text0", "text1", "mask"]


class Piece(NamedTuple):
    """One stretch of a rendered prompt: where it came from, and its characters (none for the mask).

    Only ``text0`` and ``text1`` may be shortened. A tokenizer must be told not to look for special tokens in
    them (``split_special_tokens=True``), or a record that says "<mask>" becomes a mask.
    """

    kind: Kind
    string: str


@dataclass(frozen=True)
class Example:
    """One labelled record: a text or a pair of texts, and the index of its label."""

    texts: tuple[str, ...]
    label: int


_FIELDS: Mapping[str, Kind] = {"text": "text0", "text1": "text0", "text2": "text1", "mask": "mask"}

_TRANSFORMS: Mapping[str, Callable[[str], str]] = {
    "": lambda text: text,
    "chop": lambda text: text[:-1],
    "lower": lambda text: text[:1].lower() + text[1:],
}


class _Slot(NamedTuple):
    kind: Kind
    string: str  # a literal's characters; before a text, the space that belongs to it
    transform: str


@cache
def _slots(template: str) -> tuple[_Slot, ...]:
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise Refusal("a template with balanced braces", repr(template), f"Mend it: {error}.") from error
    slots: list[_Slot] = []
    for literal, field, spec, conversion in parts:
        space = ""
        if field is not None:
            if field not in _FIELDS or conversion or (spec and (field == "mask" or spec not in _TRANSFORMS)):
                raise Refusal(
                    "the fields {text}, {text1}, {text2} (each also :chop or :lower) and {mask}",
                    f"{field!r} with {spec!r} in {template!r}",
                    "Double a brace that is meant as a character.",
                )
            # A byte-pair tokenizer joins a space to the word after it, so the space goes with the text.
            if _FIELDS[field] != "mask" and literal.endswith(" "):
                literal, space = literal[:-1], " "
        if literal:
            slots.append(_Slot("literal", literal, ""))
        if field is not None:
            slots.append(_Slot(_FIELDS[field], space, spec or ""))
    return tuple(slots)


@dataclass(frozen=True)
class Prompt:
    """A template and one word per label; the label's word stands at ``{mask}`` or, with no mask, at the end.

    Fields: ``{text}``, or ``{text1}`` and ``{text2}``; ``:chop`` drops a text's final character, ``:lower``
    lower-cases its first letter. ``words[label]`` begins with the space it needs (" great"), so no space is
    written before the mask or at the end.

    Source: Gao et al. 2021 (LM-BFF), whose ``sent-_0`` is ``{text1:chop}`` and ``+sentl_1`` is
    `` {text2:lower}``; used by Malladi et al. 2023 (MeZO) and Zhang et al. 2024 (DPZero).

    >>> nli = Prompt("{text1:chop}?{mask}, {text2:lower}", (" Yes", " No"))
    >>> [piece.string for piece in nli.render(Example(("It rained.", "The road is wet."), 0))]
    ['It rained', '?', '', ',', ' the road is wet.']
    """

    template: str
    words: tuple[str, ...]

    def __post_init__(self) -> None:
        slots = _slots(self.template)
        texts = sorted(slot.kind for slot in slots if slot.kind.startswith("text"))
        fields = {field for _, field, _, _ in Formatter().parse(self.template)}
        if texts not in (["text0"], ["text0", "text1"]) or (len(texts) == 2) == ("text" in fields):
            raise Refusal("{text} once, or {text1} and {text2} once each", repr(self.template), "Write these fields.")
        if sum(slot.kind == "mask" for slot in slots) > 1:
            raise Refusal("one {mask} at most", repr(self.template), "Remove the others.")
        if len(self.words) < 2 or len(set(self.words)) < len(self.words) or not all(map(str.strip, self.words)):
            raise Refusal("two or more distinct label words", self.words, "Name one word per label.")
        before = self._before_label(slots)
        if before != before.rstrip() and any(word[0].isspace() for word in self.words):
            raise Refusal(
                "one space before a label word",
                f"{before!r} followed by {self.words[0]!r}",
                "Leave the space to the word: byte-pair vocabularies hold ' great', not 'great'.",
            )

    def _before_label(self, slots: tuple[_Slot, ...]) -> str:
        label = next((i for i, slot in enumerate(slots) if slot.kind == "mask"), len(slots))
        return slots[label - 1].string if label and slots[label - 1].kind == "literal" else ""

    @property
    def masked(self) -> bool:
        """Whether the label stands at a mask (masked models) rather than at the end (causal models)."""
        return any(slot.kind == "mask" for slot in _slots(self.template))

    @property
    def n_texts(self) -> int:
        """How many texts a record must have: 1 or 2."""
        return sum(slot.kind in ("text0", "text1") for slot in _slots(self.template))

    def render(self, example: Example) -> tuple[Piece, ...]:
        """The pieces in order; the label's own word is not among them.

        Raises a Refusal when the record has not as many texts as the template.
        """
        if len(example.texts) != self.n_texts:
            raise Refusal(
                f"{self.n_texts} text(s) for {self.template!r}",
                f"{len(example.texts)} text(s)",
                "Pair the prompt with its own task's records.",
            )
        return tuple(_fill(slot, example.texts) for slot in _slots(self.template))


def _fill(slot: _Slot, texts: tuple[str, ...]) -> Piece:
    if slot.kind in ("literal", "mask"):
        return Piece(slot.kind, slot.string)
    text = texts[0] if slot.kind == "text0" else texts[1]
    return Piece(slot.kind, slot.string + _TRANSFORMS[slot.transform](text))
