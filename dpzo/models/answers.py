"""Whole answers of several tokens, scored by a causal model: the mean log-likelihood of each option's tokens.

The loss of a record is the cross-entropy of its label among the options' scores.

Source: the classification loss of MeZO's and DPZero's OPT experiments (BoolQ, SST-2), as read in their code.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dpzo.errors import Refusal
from dpzo.models.encoding import Encoder, Records
from dpzo.models.prompted import PromptedModel


class AnswerModel(PromptedModel):
    """A causal language model that chooses among answers of any length; arguments as for ``PromptedModel``."""

    def __init__(self, model: Any, encoder: Encoder, trainable: tuple[str, ...] = ("*",), **options: Any) -> None:
        if encoder.masked:
            raise Refusal("a causal model to score whole answers", "a masked one", "Use single-token label words.")
        super().__init__(model, encoder, trainable, **options)
        self.cut = None  # an answer's later tokens attend to its earlier ones, so no single position tells all

    def _forward(self, records: Records) -> Tensor:
        options = [np.array(word) for word in self.encoder.words]
        rows = Records(
            tuple(np.concatenate([prompt, option]) for prompt in records.ids for option in options),
            np.repeat(records.position, len(options)),
            np.repeat(records.label, len(options)),
        )
        # Token j of an answer is predicted one place before it, from the prompt's last token on.
        lengths = torch.tensor([len(option) for option in options]).repeat(len(records))
        row = torch.arange(len(rows)).repeat_interleave(lengths)
        place = torch.cat([torch.arange(p, p + n) for p, n in zip(rows.position, lengths.tolist(), strict=True)])
        tokens = torch.from_numpy(np.concatenate(options * len(records))).to(self.device)
        if self.anatomy is None:  # what lies between the hidden states and the logits is known to the model alone
            logits = self.model(**self._inputs(rows), use_cache=False).logits[row, place].double()
        else:
            hidden = self.model.base_model(**self._inputs(rows), use_cache=False).last_hidden_state[row, place]
            logits = self.model.get_output_embeddings()(self.anatomy.head(self.model, hidden)).double()
        told = logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0]
        sums = torch.zeros(len(rows), dtype=told.dtype, device=told.device).index_add_(0, row.to(told.device), told)
        return (sums / lengths.to(sums)).view(len(records), len(options)).float()
