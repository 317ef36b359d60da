"""Whole answers of several tokens, scored by a causal model: the mean log-likelihood of each option's tokens.

The loss of a record is the cross-entropy of its label among the options' scores.

Source: the classification loss of MeZO's and DPZero's OPT experiments (BoolQ, SST-2), as read in their code.
"""

from functools import reduce
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
        self._longest_answer = max(map(len, encoder.words))
        super().__init__(model, encoder, trainable, **options)
        self.cut = None  # an answer's later tokens attend to its earlier ones, so no single position tells all

    def _forward(self, records: Records, wide: int) -> tuple[Tensor, Tensor]:
        answers = [np.array(word) for word in self.encoder.words]
        n, lengths = len(records), [len(answer) for answer in answers]
        rows = Records(
            tuple(np.concatenate([prompt, answer]) for prompt in records.ids for answer in answers),
            np.repeat(records.position, len(answers)),
            np.repeat(records.label, len(answers)),
        )
        states = self._states(rows, wide + self._longest_answer)
        # Token j of an answer is predicted one place before it, from the prompt's last token on.
        row = np.arange(n)[:, None] * len(answers) + np.repeat(np.arange(len(answers)), lengths)
        place = records.position[:, None] + np.concatenate([np.arange(length) for length in lengths])
        at = states[torch.from_numpy(row.ravel()), torch.from_numpy(place.ravel())]
        if self.anatomy is not None:
            at = self.model.get_output_embeddings()(self.anatomy.head(self.model, at))
        tokens = torch.from_numpy(np.tile(np.concatenate(answers), n)).to(self.device)
        told = at.double().log_softmax(-1).gather(1, tokens[:, None]).view(n, -1)
        # Summed one token after the other, which no kernel can reorder.
        means = [reduce(torch.add, part.unbind(1)) / part.shape[1] for part in torch.split(told, lengths, 1)]
        return states, torch.stack(means, 1).to(at.dtype)

    def _finish(self, passed: Tensor) -> Tensor:
        return passed  # the answers' scores already
