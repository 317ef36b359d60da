"""A task: labels, the prompts that ask for them, and the lengths that the papers allow."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from dpzo.errors import Refusal
from dpzo.tasks.prompt import Prompt


@dataclass(frozen=True)
class Task:
    """A classification task as prompt completion; ``labels[i]`` is named by ``words[i]`` of every prompt.

    ``masked`` is the prompt for masked models. ``causal`` holds the prompts for next-token models by name;
    the first is the default. ``max_length`` bounds a whole input and ``first_limit`` its first text, both in
    tokens. ``numbered`` says that a bare integer in a data file means the label of that index; it is False
    where files in circulation disagree about the order. Rows labelled as in ``unlabelled`` have no gold label.

    Raises a Refusal where a part does not fit the others.
    """

    name: str
    title: str
    labels: tuple[str, ...]
    masked: Prompt
    causal: Mapping[str, Prompt]
    max_length: int
    first_limit: int | None = None
    numbered: bool = True
    unlabelled: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9]+", self.name):
            raise Refusal("a task name of lower-case letters and digits", repr(self.name), "Rename it.")
        if len(self.labels) < 2 or len(set(self.labels)) < len(self.labels):
            raise Refusal(f"two or more distinct labels for {self.name}", self.labels, "Name each once.")
        if not self.masked.masked:
            raise Refusal(
                f"a {{mask}} in the masked prompt of {self.name}",
                repr(self.masked.template),
                "Mark the label's place with {mask}.",
            )
        if not self.causal:
            raise Refusal(f"a causal prompt for {self.name}", "none", "Give one; the label is its next token.")
        for key, prompt in self.causal.items():
            if prompt.masked:
                raise Refusal(
                    f"no mask in the causal prompt {key!r} of {self.name}",
                    repr(prompt.template),
                    "End the template where the label's word begins.",
                )
        for prompt in (self.masked, *self.causal.values()):
            if len(prompt.words) != len(self.labels) or prompt.n_texts != self.n_texts:
                raise Refusal(
                    f"{len(self.labels)} words and {self.n_texts} text(s) in every prompt of {self.name}",
                    f"{prompt.words} and {prompt.n_texts} in {prompt.template!r}",
                    "Give one word per label and the same texts throughout.",
                )
        if self.max_length < 1 or not (self.first_limit is None or 0 < self.first_limit < self.max_length):
            raise Refusal(
                f"0 < first_limit < max_length for {self.name}",
                f"{self.first_limit} and {self.max_length}",
                "State both in tokens; None lifts the first text's own limit.",
            )

    @property
    def n_texts(self) -> int:
        """How many texts a record has: 1, or 2 for a pair."""
        return self.masked.n_texts

    @property
    def codes(self) -> dict[str, int]:
        """What a data file may write for each label: its name and, where ``numbered``, its index."""
        numbers = {str(i): i for i in range(len(self.labels))} if self.numbered else {}
        return {name: i for i, name in enumerate(self.labels)} | numbers

    def causal_prompt(self, name: str | None = None) -> Prompt:
        """The causal prompt of that name, or the default one; a Refusal lists the names."""
        key = next(iter(self.causal)) if name is None else name
        if key not in self.causal:
            raise Refusal(
                f"a causal prompt of {self.name}: {', '.join(self.causal)}", repr(name), "Choose one of these."
            )
        return self.causal[key]
