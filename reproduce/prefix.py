"""A prompted model that reads a prefix: trained keys and values that every token attends to, beside the text's own.

The model's weights stay as they are.

Source: Li and Liang 2021, without their network that makes the prefix; begun at real activations, as in Malladi et al.
2023.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from dpzo import Refusal
from dpzo.models.encoding import Encoder, Records
from dpzo.models.prompted import PromptedModel
from dpzo.parameters import Parameters
from reproduce.public_text import SENTENCES


@dataclass(frozen=True)
class Prefix:
    """How much is trained: ``positions`` keys and values of each head, in every block or in the last one only."""

    positions: int = 10
    last_only: bool = False


# Of each family, inside its base model: the blocks, and inside a block what attends.
_PLACES = {
    "llama": ("layers", "self_attn"),
    "bert": ("encoder.layer", "attention.self"),
    "roberta": ("encoder.layer", "attention.self"),
}


class PrefixModel(PromptedModel):
    """A language model, an encoder and a prefix, which is all that is trained; options as for ``PromptedModel``.

    ``params`` holds "<block>.key" and "<block>.value" of each block with a prefix, (heads of keys, positions, size of a
    head). They begin at the keys and values of a public text's tokens.

    Raises:
        Refusal: a family whose blocks are not known here.
    """

    def __init__(self, model: Any, encoder: Encoder, prefix: Prefix, **options: Any) -> None:
        super().__init__(model, encoder, **options)
        if model.config.model_type not in _PLACES:
            raise Refusal(f"a model out of {', '.join(_PLACES)}", model.config.model_type, "Train weights instead.")
        blocks, attention = _PLACES[model.config.model_type]
        every = model.base_model.get_submodule(blocks)
        self._first = len(every) - 1 if prefix.last_only else 0
        self._blocks = list(every)[self._first :]
        self._attending = [block.get_submodule(attention) for block in self._blocks]
        self.cut = None  # what is trained acts where tokens attend
        self.params = Parameters(self._activations(prefix.positions))
        self._read: Mapping[str, Tensor] = self.params

    def data_free(self, *, one_token: bool = False) -> Tensor:
        """Refuse: scores that choose what to train are of weights."""
        raise Refusal("trained weights, to be scored without data", "a trained prefix", "Train all of it.")

    @contextmanager
    def copies(self, count: int) -> Iterator[dict[str, Tensor]]:
        """Let each of the next ``count`` records read a copy of the prefix that is its own; yields them, (count, ...).

        The gradient of the sum of the losses with respect to the copies then holds each record's own gradient.
        """
        own = {name: t.detach().expand(count, *t.shape).clone().requires_grad_() for name, t in self.params.items()}
        self._read = own
        try:
            yield own
        finally:
            self._read = self.params

    def _prefixes(self, count: int) -> list[list[Tensor]]:
        # Of each block the key and the value, (count, heads of keys, positions, size of a head).
        names = [(f"{block}.key", f"{block}.value") for block, _ in enumerate(self._blocks, self._first)]
        return [[self._read[name].expand(count, -1, -1, -1) for name in both] for both in names]

    def _states(self, records: Records, wide: int) -> Tensor:
        with self._telling([{"prefix": both} for both in self._prefixes(len(records))]):
            return super()._states(records, wide)

    @torch.no_grad()
    def _activations(self, positions: int) -> dict[str, Tensor]:
        # The first token's are left out: many models rest their attention there, whatever the token is.
        ids = np.array(self.encoder._tokens(" ".join(SENTENCES))[: positions + 1])
        nobody = np.zeros(1, dtype=np.int64)
        told: list[list[Tensor]] = [[] for _ in self._blocks]
        with self._telling([{"told": of} for of in told]):
            super()._states(Records((ids,), nobody, nobody), len(ids))
        return {
            f"{block}.{kind}": t[0, :, 1:].contiguous()
            for block, (_, key, value, _) in enumerate(told, self._first)
            for kind, t in (("key", key), ("value", value))
        }

    @contextmanager
    def _telling(self, told: Sequence[dict[str, Any]]) -> Iterator[None]:
        # An attention module hands on to its attention function what it is told and does not know.
        config = self.model.config
        with ExitStack() as after:
            for module, more in zip(self._attending, told, strict=True):
                hook = module.register_forward_pre_hook(
                    lambda module, args, known, more=more: (args, known | more), with_kwargs=True
                )
                after.callback(hook.remove)
            after.callback(setattr, config, "_attn_implementation", config._attn_implementation)
            config._attn_implementation = _NAME
            yield


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    prefix: Sequence[Tensor] | None = None,
    told: list[Tensor] | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    # Every token sees the whole prefix, which has no place in the text: a rotary model's keys are not turned.
    if told is not None:
        told += [query, key, value, mask]
    if prefix is not None:
        key, value = (torch.cat([before, t], 2) for before, t in zip(prefix, (key, value), strict=True))
        mask = torch.cat([mask.new_ones(*mask.shape[:3], prefix[0].shape[2]), mask], 3)
    return sdpa_attention_forward(module, query, key, value, mask, **options)


def _whole_mask(*sizes: Any, **options: Any) -> Any:
    # There is always a mask, also where the text alone would need none.
    return sdpa_mask(*sizes, **options | {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False})


_NAME = "prefix"
AttentionInterface.register(_NAME, _attend)
AttentionMaskInterface.register(_NAME, _whole_mask)
