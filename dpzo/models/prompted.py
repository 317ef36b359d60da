"""A language model as a classifier: it reads a prompt and chooses among label words.

The loss of a record is the cross-entropy of its label among the label words' logits, at the mask of a masked model or
after the last token of a causal one. Nothing is computed across records: each is padded on its own account, masked
from the padding, and the model is in eval mode.

Source: the loss of Zhang et al. 2024, section 5.2, as in Malladi et al. 2023.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear
from tqdm import tqdm

from dpzo.errors import Refusal
from dpzo.models.anatomy import ANATOMIES, Anatomy, Cut
from dpzo.models.encoding import Encoder, Records
from dpzo.parameters import Parameters
from dpzo.tasks import Example

_MULTIPLE = 4  # padded lengths are multiples of this, so that kernels meet few shapes
_CUT_ROWS = 1024  # records that go through what comes after a cut at once: it is small


class PromptedModel:
    """A transformers language model, an encoder, and what of the model is trained.

    Args:
        model: a masked or causal language model of transformers, put in eval mode here.
        encoder: its tokenizer with a task's prompt.
        trainable: patterns of parameter names (``*`` matches anything); ("*",) trains all.
        max_physical_batch_size: records that go through the model at once.

    Raises:
        Refusal: a pattern that matches nothing, or half-precision weights (their rounding eats the differences).
    """

    def __init__(
        self,
        model: Any,
        encoder: Encoder,
        trainable: Sequence[str] = ("*",),
        *,
        max_physical_batch_size: int = 64,
    ) -> None:
        self.model, self.encoder = model.eval(), encoder
        self.max_physical_batch_size = max_physical_batch_size
        self.params = Parameters(_choose(model, trainable))
        if half := sorted({str(t.dtype) for t in self.params.values() if t.dtype in (torch.float16, torch.bfloat16)}):
            raise Refusal(
                "weights to train in float32",
                ", ".join(half),
                "Load the model with dtype=torch.float32: half precision rounds the differences of losses away.",
            )
        self.device = next(iter(self.params.values())).device
        self.anatomy: Anatomy | None = ANATOMIES.get(model.config.model_type)
        last = model.config.num_hidden_layers - 1
        self.cut: Cut | None = self.anatomy.cut(list(self.params), last) if self.anatomy else None
        self._words = torch.tensor([word[0] for word in encoder.words], device=self.device)

    @property
    def trains_tail_only(self) -> bool:
        """Whether all that is trained acts after the last attention, so that its input is computed but once."""
        return self.cut is not None

    def encode(self, examples: Sequence[Example], *, progress: str | None = None) -> Records:
        """Encode examples; when there is a cut before all that is trained, compute here once what passes it.

        What passes the cut is as private as the text; it stays in memory. ``progress`` names a progress bar.
        """
        records = self.encoder.encode(examples)
        if self.cut is None:
            return records
        bar = tqdm(total=len(records), desc=progress, unit="text", disable=progress is None, leave=False)
        passed = torch.empty(len(records), self.model.config.hidden_size, device=self.device)
        with torch.inference_mode(), bar:
            for rows in self._physical(records):
                passed[torch.from_numpy(rows).to(self.device)] = self._pass(self.cut, records[rows])
                bar.update(len(rows))
        return replace(records, ids=(), passed=passed)

    @torch.inference_mode()
    def losses(self, records: Records) -> Tensor:
        """(b,) cross-entropies in nats, float64."""
        label = torch.from_numpy(records.label).to(self.device)
        # In float64 from the logits on: the difference of two losses is what counts.
        return cross_entropy(self.scores(records).double(), label, reduction="none")

    @torch.inference_mode()
    def scores(self, records: Records) -> Tensor:
        """(b, number of labels) logits of the label words."""
        scores = torch.empty(len(records), len(self._words), device=self.device)
        if records.passed is not None:
            assert self.cut is not None
            for start in range(0, len(records), _CUT_ROWS):
                block = slice(start, start + _CUT_ROWS)
                scores[block] = self._finish(self.cut.rest(self.model, records.passed[block]))
            return scores
        for rows in self._physical(records):
            scores[torch.from_numpy(rows).to(self.device)] = self._forward(records[rows])
        return scores

    def _physical(self, records: Records) -> Iterator[npt.NDArray[np.int64]]:
        # Records of like length go together: less padding.
        order = np.argsort([len(i) for i in records.ids], kind="stable")
        for start in range(0, len(order), self.max_physical_batch_size):
            yield order[start : start + self.max_physical_batch_size]

    def _inputs(self, records: Records) -> dict[str, Tensor]:
        longest = max(len(i) for i in records.ids)
        width = -(-longest // _MULTIPLE) * _MULTIPLE
        pad = self.encoder.tokenizer.pad_token_id
        ids = np.full((len(records), width), 0 if pad is None else pad)
        mask = np.zeros_like(ids)
        for row, tokens in enumerate(records.ids):
            ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
        # Padding goes to the right, where a causal model never looks back from and a mask keeps others away from.
        return {
            "input_ids": torch.from_numpy(ids).to(self.device),
            "attention_mask": torch.from_numpy(mask).to(self.device),
        }

    def _forward(self, records: Records) -> Tensor:
        at = torch.arange(len(records)), torch.from_numpy(records.position)
        if self.anatomy is None:
            logits: Tensor = self.model(**self._inputs(records)).logits
            return logits[at][:, self._words]
        hidden = self.model.base_model(**self._inputs(records), **self._no_cache()).last_hidden_state
        return self._finish(hidden[at])

    def _no_cache(self) -> dict[str, bool]:
        return {} if self.encoder.masked else {"use_cache": False}

    def _finish(self, hidden: Tensor) -> Tensor:
        assert self.anatomy is not None
        out = self.model.get_output_embeddings()
        bias = None if getattr(out, "bias", None) is None else out.bias[self._words]
        return linear(self.anatomy.head(self.model, hidden), out.weight[self._words], bias)

    def _pass(self, cut: Cut, records: Records) -> Tensor:
        caught: list[Tensor] = []
        hooks = []
        if cut.entry is not None:
            entry = self.model.get_submodule(cut.entry)
            hooks.append(entry.register_forward_pre_hook(lambda module, inputs: caught.append(inputs[0])))
        try:
            caught.append(self.model.base_model(**self._inputs(records), **self._no_cache()).last_hidden_state)
        finally:
            for hook in hooks:
                hook.remove()
        return caught[0][torch.arange(len(records)), torch.from_numpy(records.position)]


def _choose(model: Any, patterns: Sequence[str]) -> dict[str, Tensor]:
    named = dict(model.named_parameters())  # a tied tensor appears once
    chosen: dict[str, Tensor] = {}
    for pattern in patterns:
        matches = {name: t for name, t in named.items() if fnmatchcase(name, pattern)}
        if not matches:
            raise Refusal(
                "patterns that match names of parameters",
                repr(pattern),
                f"Names look like {', '.join(list(named)[-3:])}.",
            )
        chosen |= matches
    return {name: t for name, t in named.items() if name in chosen}
