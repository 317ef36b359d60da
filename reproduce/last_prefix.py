"""A prefix in the last block alone, behind a cut: what it needs of a text is computed once, at one position.

The prefix changes no key, value or query of the text, so the text's own attention is told by two things: its outcome o
and the logarithm l of the sum of its exponentials. With a prefix of keys k_j and values v_j, a head's query q attends

    to o with score l and to v_j with score q . k_j / sqrt(size of a head), j = 1 .. positions,

as if the whole text were one more position.
"""

from typing import Any

import torch
from torch import Tensor

from dpzo.models.encoding import Encoder, Records
from dpzo.models.prompted import PromptedModel
from reproduce.prefix import Prefix, PrefixModel

# From the attention's outcome (b, heads * size of a head) and the block's input (b, h) to what enters its second half.
_JOIN = {
    "llama": lambda block, mixed, h: h + block.self_attn.o_proj(mixed),
    "bert": lambda block, mixed, h: block.attention.output(mixed, h),
    "roberta": lambda block, mixed, h: block.attention.output(mixed, h),
}


class LastPrefixModel(PrefixModel):
    """The model that ``PrefixModel`` is with a prefix in the last block only; a step takes no pass through the rest."""

    def __init__(self, model: Any, encoder: Encoder, positions: int, **options: Any) -> None:
        super().__init__(model, encoder, Prefix(positions, last_only=True), **options)
        assert self.anatomy is not None
        last = model.config.num_hidden_layers - 1
        second_half = [prefix.format(last=last) for prefix in self.anatomy.cuts[-1].owned]
        self.cut = self.anatomy.cut(second_half, last)

    def _forward(self, records: Records, wide: int) -> tuple[Tensor, Tensor]:
        (block,), told, entering = self._blocks, [], []
        hook = block.register_forward_pre_hook(lambda module, inputs: entering.append(inputs[0]))
        try:
            with self._telling([{"told": told}]):
                states = PromptedModel._states(self, records, wide)
        finally:
            hook.remove()
        at = torch.arange(len(records)), torch.from_numpy(records.position)
        query, key, value, mask = told
        query, seen = query.transpose(1, 2)[at], mask[:, 0][at][:, None]  # (b, heads, size), (b, 1, tokens)
        scores = self._scores(query, key).masked_fill(~seen, -torch.inf)
        own = torch.einsum("bhs,bhsd->bhd", scores.softmax(-1), self._for_heads(value))
        return states, torch.cat([entering[0][at], query.flatten(1), own.flatten(1), scores.logsumexp(-1)], 1)

    def _finish(self, passed: Tensor) -> Tensor:
        (block,), ((key, value),) = self._blocks, self._prefixes(len(passed))
        heads = self.model.config.num_attention_heads
        size = key.shape[-1]
        h, query, own, weight = passed.split([passed.shape[1] - heads * (2 * size + 1), *[heads * size] * 2, heads], 1)
        query, own = (t.view(-1, heads, size) for t in (query, own))
        shares = torch.cat([weight[..., None], self._scores(query, key)], -1).softmax(-1)
        mixed = shares[..., :1] * own + torch.einsum("bhp,bhpd->bhd", shares[..., 1:], self._for_heads(value))
        return super()._finish(_JOIN[self.model.config.model_type](block, mixed.flatten(1), h))

    def _scores(self, query: Tensor, key: Tensor) -> Tensor:
        # (b, heads, keys)
        scaled = query * self._attending[0].scaling
        return torch.einsum("bhd,bhpd->bhp", scaled, self._for_heads(key))

    def _for_heads(self, t: Tensor) -> Tensor:
        # Several heads of queries may share a head of keys and values.
        return t.repeat_interleave(self.model.config.num_attention_heads // t.shape[1], 1)


def prefixed(model: Any, encoder: Encoder, prefix: Prefix, **options: Any) -> PrefixModel:
    """The model that reads this prefix."""
    if prefix.last_only:
        return LastPrefixModel(model, encoder, prefix.positions, **options)
    return PrefixModel(model, encoder, prefix, **options)
