"""From examples to token ids: the prompt's own words always survive, the text gives way."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dpzo.errors import Refusal
from dpzo.records import made_up
from dpzo.tasks import Example, Prompt, Task
from dpzo.types import Indices


@dataclass(frozen=True)
class Records:
    """Encoded examples, pickable by an array of indices.

    Attributes:
        ids: token ids of each prompt, ragged; empty once ``passed`` is there, which replaces them.
        position: (n,) where the label is read: the mask, or the last token of a causal prompt.
        label: (n,) the right answer's number.
        passed: what passes the model's cut for each record, (n, h), once it has been computed; else None.
    """

    ids: tuple[npt.NDArray[np.int64], ...]
    position: npt.NDArray[np.int64]
    label: npt.NDArray[np.int64]
    passed: Any = None

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, indices: Indices) -> "Records":
        return Records(
            tuple(self.ids[i] for i in indices) if self.ids else (),
            self.position[indices],
            self.label[indices],
            None if self.passed is None else self.passed[indices],
        )

    def misfits(self, words: int, vocabulary: int, limit: int | None) -> Indices:
        """The numbers of the records whose label, tokens, position or length a model of these sizes does not take."""
        wrong = (self.label < 0) | (self.label >= words)
        if self.passed is None:
            lengths = np.array([len(ids) for ids in self.ids], dtype=np.int64)
            wrong |= (lengths == 0) | (self.position < 0) | (self.position >= lengths)
            wrong |= False if limit is None else lengths > limit
            wrong |= np.array([len(ids) > 0 and not 0 <= ids.min() <= ids.max() < vocabulary for ids in self.ids])
        return np.flatnonzero(wrong)

    def made_up(self, rows: Sequence[int]) -> "Records":
        """Public records in this form, told by their numbers: of 3 to 7 of the first tokens, or with made-up states."""
        ids = tuple((np.arange(3 + row % 5) * (row + 2) + row) % 8 for row in rows)
        told = None if self.passed is None else made_up(self.passed, rows) - 0.5
        position = np.array([len(tokens) - 1 for tokens in ids], dtype=np.int64)
        label = np.array([row % 2 for row in rows], dtype=np.int64)
        return Records(ids if told is None else (), position, label, told)

    def join(self, other: "Records") -> "Records":
        """Both, one after the other."""
        if (self.passed is None) != (other.passed is None):
            raise Refusal("records encoded in the same way", "some with and some without states", "Encode them alike.")
        return Records(
            self.ids + other.ids,
            np.concatenate([self.position, other.position]),
            np.concatenate([self.label, other.label]),
            None if self.passed is None else torch.cat([self.passed, other.passed]),
        )


class Encoder:
    """A tokenizer and a task's prompt, checked against each other.

    Raises:
        Refusal: a masked prompt for a tokenizer without a mask token, or (when ``single_token``) a label word that is
            not one token.
    """

    def __init__(self, tokenizer: Any, task: Task, prompt: Prompt, *, masked: bool, single_token: bool = True) -> None:
        self.tokenizer, self.task, self.prompt, self.masked = tokenizer, task, prompt, masked
        self._special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
        if masked and tokenizer.mask_token_id is None:
            raise Refusal(
                "a tokenizer with a mask token, for a prompt with a mask",
                f"{type(tokenizer).__name__} without one",
                "Use a masked language model, or a causal prompt.",
            )
        # What the tokenizer puts around every text, found by example: [CLS] and [SEP], a BOS, or nothing.
        plain = self._tokens("x")
        whole = list(tokenizer("x")["input_ids"])
        start = next(i for i in range(len(whole)) if whole[i : i + len(plain)] == plain)
        self._before, self._after = whole[:start], whole[start + len(plain) :] if masked else []
        self.words = [self._tokens(word) for word in prompt.words]
        if single_token:
            for word, tokens in zip(prompt.words, self.words, strict=True):
                if len(tokens) != 1 or tokens[0] == tokenizer.unk_token_id:
                    raise Refusal(
                        "label words of one token each",
                        f"{word!r}, which is {tokenizer.convert_ids_to_tokens(tokens)}",
                        "Choose another word, or score whole answers with dpzo.models.answers.AnswerModel.",
                    )
            if len({tokens[0] for tokens in self.words}) < len(self.words):
                raise Refusal("label words of different tokens", prompt.words, "Choose other words.")

    def _tokens(self, text: str) -> list[int]:
        ids = self._ids(text)
        if text[:1].isspace():
            # As in running text, after another word: SentencePiece puts a space of its own before a text on its own.
            word, both = self._ids("x"), self._ids("x" + text)
            if both[: len(word)] == word:
                ids = both[len(word) :]
        # Special tokens spelled out in a private text are plain text. Vocabularies that have them as words all the same
        # (Unigram's, as XLM-R's) lose them.
        return [i for i in ids if i not in self._special]

    def _ids(self, text: str) -> list[int]:
        return list(
            self.tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
        )

    def encode(self, examples: Sequence[Example]) -> Records:
        """Encode every example on its own: no padding, no dependence on the others.

        Raises:
            Refusal: texts that hold half a character (a lone surrogate), or no text; it tells which examples.
        """
        if broken := [number for number, example in enumerate(examples) if not _is_text(example)]:
            raise Refusal(
                "texts of whole characters",
                f"{len(broken)} examples without, such as number {', '.join(map(str, broken[:20]))}",
                "Mend or leave out these: half a character, such as \\ud800 alone, has no bytes.",
            )
        encoded = [self._encode(example) for example in examples]
        return Records(
            tuple(np.array(ids, dtype=np.int64) for ids, _ in encoded),
            np.array([position for _, position in encoded], dtype=np.int64),
            np.array([e.label for e in examples], dtype=np.int64),
        )

    def _encode(self, example: Example) -> tuple[list[int], int]:
        pieces = self._pieces(example)
        limit, first_limit = self.task.max_length, self.task.first_limit
        fixed = len(self._before) + len(self._after) + sum(len(t) for kind, t in pieces if kind in ("literal", "mask"))
        room = limit - fixed
        texts = [kind for kind, _ in pieces if kind.startswith("text")]
        if room < len(texts):
            raise Refusal(
                f"room for the text within {limit} tokens", f"a template of {fixed} tokens", "Shorten the template."
            )
        # Texts lose tokens from their ends, the longest first, until the whole fits.
        lengths = {kind: len(tokens) for kind, tokens in pieces if kind.startswith("text")}
        if first_limit is not None and "text0" in lengths:
            lengths["text0"] = min(lengths["text0"], first_limit)
        while sum(lengths.values()) > room:
            longest = max(lengths, key=lambda kind: lengths[kind])
            lengths[longest] -= 1
        ids, position = list(self._before), -1
        for kind, tokens in pieces:
            if kind == "mask":
                position = len(ids)
            ids += tokens[: lengths[kind]] if kind in lengths else tokens
        ids += self._after
        return ids, position if self.masked else len(ids) - 1

    def _pieces(self, example: Example) -> list[tuple[str, list[int]]]:
        return [
            (kind, [self.tokenizer.mask_token_id] if kind == "mask" else self._tokens(text))
            for kind, text in self.prompt.render(example)
        ]


def _is_text(example: Any) -> bool:
    try:
        return all(isinstance(text.encode(), bytes) for text in example.texts)
    except (AttributeError, UnicodeEncodeError):
        return False
