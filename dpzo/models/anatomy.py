"""Where a language model's head is, and what of it acts at one position alone.

Two facts about an architecture save most of a step's time, and are looked up here: how the last hidden state at the
label position becomes the input of the output embedding (so that a handful of label words are scored, not the whole
vocabulary), and where the model can be cut after its last attention. What comes after such a cut acts at each
position on its own; when nothing before it is trained, what passes the cut never changes and is computed once for
each text. A model whose anatomy is not listed works too, through its own forward pass.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn.functional import gelu

Part = Callable[[Any, Any], Any]
"""(model, states (b, h)) -> states (b, h)."""


@dataclass(frozen=True)
class Cut:
    """A place to cut, after the last attention; ``{last}`` stands for the last layer's number.

    Attributes:
        entry: the module whose input passes the cut; None: the cut is at the last hidden states themselves.
        rest: from what passes the cut to the last hidden states.
        owned: prefixes of the names of the parameters that act after the cut alone.
    """

    entry: str | None
    rest: Part
    owned: tuple[str, ...]


@dataclass(frozen=True)
class Anatomy:
    """How one family is built: last hidden states -> the output embedding's input, and the cuts, latest first."""

    head: Part
    cuts: tuple[Cut, ...] = ()

    def cut(self, names: list[str], last: int) -> Cut | None:
        """The latest cut before everything that is trained, with its names filled in; None if there is none."""
        for cut in self.cuts:
            owned = tuple(prefix.format(last=last) for prefix in cut.owned)
            if all(name.startswith(owned) for name in names):
                entry = None if cut.entry is None else cut.entry.format(last=last)
                return Cut(entry, cut.rest, owned)
        return None


def lost_positions(model: Any) -> int:
    """How many of its positions a model never uses: RoBERTa's kind counts from its padding token's number on."""
    offsets = (
        layer.padding_idx + 1
        for name, layer in model.named_modules()
        if name.endswith("position_embeddings") and getattr(layer, "padding_idx", None) is not None
    )
    return next(offsets, 0)


def _unchanged(model: Any, h: Tensor) -> Tensor:
    return h


def _llama_norm(model: Any, h: Any) -> Any:
    return model.model.norm(h)


def _llama_mlp(model: Any, h: Any) -> Any:
    layer = model.model.layers[-1]
    return _llama_norm(model, h + layer.mlp(layer.post_attention_layernorm(h)))


def _bert_mlp(model: Any, h: Any) -> Any:
    layer = model.base_model.encoder.layer[-1]
    return layer.output(layer.intermediate(h), h)


def _bert_head(model: Any, h: Any) -> Any:
    return model.cls.predictions.transform(h)


def _roberta_head(model: Any, h: Any) -> Any:
    return model.lm_head.layer_norm(gelu(model.lm_head.dense(h)))


_LLAMA = Anatomy(
    head=_unchanged,
    cuts=(
        Cut("model.norm", _llama_norm, ("model.norm.",)),
        Cut(
            "model.layers.{last}.post_attention_layernorm",
            _llama_mlp,
            ("model.layers.{last}.post_attention_layernorm.", "model.layers.{last}.mlp.", "model.norm."),
        ),
    ),
)
_BERT_HEAD = ("cls.predictions.transform.",)
_ROBERTA_HEAD = ("lm_head.dense.", "lm_head.layer_norm.")

ANATOMIES = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "opt": Anatomy(head=_unchanged),
    "gpt2": Anatomy(head=_unchanged),
    "bert": Anatomy(
        head=_bert_head,
        cuts=(
            Cut(None, _unchanged, _BERT_HEAD),
            Cut(
                "bert.encoder.layer.{last}.intermediate",
                _bert_mlp,
                ("bert.encoder.layer.{last}.intermediate.", "bert.encoder.layer.{last}.output.", *_BERT_HEAD),
            ),
        ),
    ),
    "roberta": Anatomy(
        head=_roberta_head,
        cuts=(
            Cut(None, _unchanged, _ROBERTA_HEAD),
            Cut(
                "roberta.encoder.layer.{last}.intermediate",
                _bert_mlp,
                ("roberta.encoder.layer.{last}.intermediate.", "roberta.encoder.layer.{last}.output.", *_ROBERTA_HEAD),
            ),
        ),
    ),
}
