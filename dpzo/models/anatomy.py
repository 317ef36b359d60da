"""Where a language model's head is, and what of it acts at one position alone.

Two facts about an architecture save most of a step's time, and are looked up here: how the last hidden state at the
label position becomes the input of the output embedding (so that a handful of label words are scored, not the whole
vocabulary), and which last part of the model acts at each position on its own (its *tail*: everything after the last
attention). When only the tail is trained, what enters it never changes and is computed once. A model whose anatomy is
not listed works too, through its own forward pass.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Anatomy:
    """How one family is built.

    Attributes:
        head: (model, last hidden states (b, h)) -> the output embedding's input (b, h).
        entry: the module whose input enters the tail, with {last} for the last layer's number; None: no tail.
        tail: (model, what entered (b, h)) -> last hidden states (b, h).
        owned: prefixes of the names of the parameters that act in tail and head alone.
    """

    head: Callable[[Any, Tensor], Tensor]
    entry: str | None = None
    tail: Callable[[Any, Tensor], Tensor] | None = None
    owned: tuple[str, ...] = ()


def _llama_tail(model: Any, h: Tensor) -> Tensor:
    layer = model.model.layers[-1]
    return model.model.norm(h + layer.mlp(layer.post_attention_layernorm(h)))


def _bert_tail(model: Any, h: Tensor) -> Tensor:
    layer = model.base_model.encoder.layer[-1]
    return layer.output(layer.intermediate(h), h)


def _bert_head(model: Any, h: Tensor) -> Tensor:
    return model.cls.predictions.transform(h)


def _roberta_head(model: Any, h: Tensor) -> Tensor:
    return model.lm_head.layer_norm(F.gelu(model.lm_head.dense(h)))


def _as_it_is(model: Any, h: Tensor) -> Tensor:
    return h


_LLAMA = Anatomy(
    head=_as_it_is,
    entry="model.layers.{last}.post_attention_layernorm",
    tail=_llama_tail,
    owned=("model.layers.{last}.post_attention_layernorm.", "model.layers.{last}.mlp.", "model.norm."),
)

ANATOMIES = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "opt": Anatomy(head=_as_it_is),
    "gpt2": Anatomy(head=_as_it_is),
    "bert": Anatomy(
        head=_bert_head,
        entry="bert.encoder.layer.{last}.intermediate",
        tail=_bert_tail,
        owned=(
            "bert.encoder.layer.{last}.intermediate.",
            "bert.encoder.layer.{last}.output.",
            "cls.predictions.transform.",
        ),
    ),
    "roberta": Anatomy(
        head=_roberta_head,
        entry="roberta.encoder.layer.{last}.intermediate",
        tail=_bert_tail,
        owned=(
            "roberta.encoder.layer.{last}.intermediate.",
            "roberta.encoder.layer.{last}.output.",
            "lm_head.dense.",
            "lm_head.layer_norm.",
        ),
    ),
}
