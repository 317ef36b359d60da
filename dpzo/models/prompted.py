"""A language model as a classifier: it reads a prompt and chooses among label words.

The loss of a record is the cross-entropy of its label among the label words' logits, at the mask of a masked model or
after the last token of a causal one. Nothing is computed across records, and each loss is its record's own, bit for
bit: records are padded each on its own account, and kernels meet them in the shapes of ``dpzo.models.shapes`` alone.

Source: the loss of Zhang et al. 2024, section 5.2, as in Malladi et al. 2023.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear
from tqdm import tqdm

from dpzo.errors import Refusal
from dpzo.independence import arithmetic, refuse_coupling, routes
from dpzo.models.anatomy import ANATOMIES, Anatomy, Cut, lost_positions
from dpzo.models.encoding import Encoder, Records
from dpzo.models.shapes import filled, rows_of, treats_rows_alike, width
from dpzo.parameters import Parameters, chosen
from dpzo.tasks import Example

_MADE_UP = 64  # tokens of the data-free text: about the length of a prompt


class PromptedModel:
    """A transformers language model, an encoder, and what of the model is trained.

    Args:
        model: a masked or causal language model of transformers, put in eval mode here.
        encoder: its tokenizer with a task's prompt.
        trainable: patterns of parameter names (``*`` matches anything); ("*",) trains all.
        physical_batch_size: records that go through the model at once, always exactly so many (copies fill up); 1 takes
            each alone and unpadded, as models with experts always are. It is public: a loss does not depend on its
            batch or how that is split, but another size may change all losses by rounding.
        cut_batch_size: the same for what comes after the last attention, which is small. When all that is trained is
            there, a batch of one record more than this takes twice the time.

    Raises:
        Refusal: a pattern that matches nothing, half-precision weights (their rounding eats the differences), layers
            that couple records, or a task whose texts may be longer than the model takes.
    """

    couples_records: str | None = None  # each loss is its record's own, bit for bit
    _longest_answer = 0  # tokens that follow a prompt

    def __init__(
        self,
        model: Any,
        encoder: Encoder,
        trainable: Sequence[str] = ("*",),
        *,
        physical_batch_size: int = 4,
        cut_batch_size: int = 64,
    ) -> None:
        refuse_coupling(model)
        self.model, self.encoder = model.eval(), encoder
        self.physical_batch_size = 1 if routes(model.config) else rows_of(physical_batch_size)
        self.cut_batch_size = rows_of(cut_batch_size)
        self.params = Parameters(chosen(model, trainable))
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
        self._alike: dict[object, bool] = {}
        self._lost = lost_positions(model)
        self._refuse_long(encoder.task.max_length)

    def _refuse_long(self, length: int) -> None:
        if self.limit is not None and length > self.limit:
            raise Refusal(
                f"texts of at most the {self.limit} tokens that the model takes",
                f"a task whose max_length is {length}",
                f"Give the encoder dataclasses.replace(task, max_length={self.limit}).",
            )

    @property
    def limit(self) -> int | None:
        """How many tokens of a prompt the model takes; None where it sets no limit."""
        most = getattr(self.model.config, "max_position_embeddings", None)
        return None if most is None else most - self._lost - self._longest_answer

    def check_records(self, data: Any, passes: int = 0) -> None:
        """Refuse records that this model cannot compute, before a run; it takes no forward pass to tell.

        Raises:
            Refusal: what ``encode`` did not return; labels, tokens, lengths or positions out of the model's range. It
                tells how many records and which, not what they hold.
        """
        if not isinstance(data, Records):
            raise Refusal("records that model.encode returned", type(data).__name__, "Encode the examples first.")
        if data.passed is not None and self.cut is None:
            raise Refusal("records encoded for this model", "states of another's cut", "Encode the examples with it.")
        words, vocabulary = len(self.encoder.words), len(self.model.get_input_embeddings().weight)
        if len(rows := data.misfits(words, vocabulary, self.limit)):
            raise Refusal(
                f"labels from 0 to {words - 1}, and tokens, lengths and positions within the model's",
                f"{len(rows)} records without, such as number {', '.join(map(str, rows[:20]))}",
                "Mend or leave out these, and plan for as many as remain.",
            )

    @property
    def trains_tail_only(self) -> bool:
        """Whether all that is trained acts after the last attention, so that its input is computed but once."""
        return self.cut is not None

    def encode(self, examples: Sequence[Example], *, progress: str | None = None) -> Records:
        """Encode examples; when there is a cut before all that is trained, compute here once what passes it.

        What passes the cut is as private as the text; it stays in memory. ``progress`` names a progress bar.
        """
        records = self.encoder.encode(examples)
        return records if self.cut is None else replace(records, ids=(), passed=self._passed(records, progress))

    @property
    def network(self) -> torch.nn.Module:
        """The language model, whose weights ``data_free`` is a function of."""
        module: torch.nn.Module = self.model
        return module

    def data_free(self, *, one_token: bool = False) -> Tensor:
        """(): the sum of all logits at all positions for a made-up public text, differentiable in every weight.

        The text has 64 distinct ordinary tokens, spread evenly over the vocabulary (fewer for a model that takes fewer
        than 128). They are distinct, because equal ones would have equal values: attention would mix these to the same
        thing whatever its weights, and queries and keys would get no gradient. All positions count, masked model or
        causal, because which one will hold a label is the prompt's to say. Position embeddings beyond these, and rows
        of an untied input embedding for other tokens, have no part in the sum.

        ``one_token``: the text is the single token 1 instead, as in the code of the authors of DP-ZOPO.
        """
        logits: Tensor = self.model(**self._made_up_inputs(one_token)).logits
        return logits.double().sum()

    def data_free_tail(self, *, one_token: bool = False) -> Callable[[], Tensor]:
        """``data_free`` as a function of what is trained alone: what no trained tensor reaches is computed now, once.

        The function gives ``data_free()``, to rounding, until something else than what is trained changes. Behind a cut
        it is fast: the sum of all logits is that of the last states, times the sum of the output embedding's rows.
        """
        overridden = type(self).data_free is not PromptedModel.data_free
        if self.cut is None or overridden:
            return partial(self.data_free, one_token=one_token)
        out = self.model.get_output_embeddings()
        with torch.no_grad():
            passed = self._caught(self._made_up_inputs(one_token))
            rows = out.weight.double().sum(0)
            bias = 0.0 if getattr(out, "bias", None) is None else out.bias.double().sum()
        return lambda: (self._head(passed).double() @ rows + bias).sum()

    def _made_up_inputs(self, one_token: bool) -> dict[str, Any]:
        ids = torch.tensor([[1] if one_token else self._made_up_text()], device=self.device)
        return self._inputs(ids, torch.ones_like(ids))

    def _made_up_text(self) -> list[int]:
        tokenizer, limit = self.encoder.tokenizer, self.limit
        known = min(len(tokenizer), len(self.model.get_input_embeddings().weight))
        ordinary = np.setdiff1d(np.arange(known), tokenizer.all_special_ids)
        length = min(len(ordinary), _MADE_UP if limit is None else min(_MADE_UP, limit // 2))
        spread: list[int] = ordinary[(2 * np.arange(length) + 1) * len(ordinary) // (2 * length)].tolist()
        return spread

    @torch.inference_mode()
    def losses(self, records: Records) -> Tensor:
        """(b,) cross-entropies in nats, float64."""
        return self._finished(records, _cross_entropy)

    @torch.inference_mode()
    def scores(self, records: Records) -> Tensor:
        """(b, number of labels) logits of the label words."""
        return self._finished(records, lambda scores, label: scores)

    def _finished(self, records: Records, last: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        passed = self._passed(records) if records.passed is None else records.passed
        label = torch.from_numpy(records.label).to(self.device)
        if not len(label):
            return last(passed.new_empty(0, len(self._words)), label)
        size = self.cut_batch_size if self._finishes_alike(passed) else 1
        blocks = [
            last(self._finish(_filled(passed[start : start + size], size)), _filled(label[start : start + size], size))
            for start in range(0, len(label), size)
        ]
        return (blocks[0] if len(blocks) == 1 else torch.cat(blocks))[: len(label)]

    def _finishes_alike(self, passed: Tensor) -> bool:
        def compute(trials: Sequence[int]) -> Tensor:
            frequency = torch.tensor(trials)[:, None] + 1
            scores = self._finish((frequency * torch.arange(1.0, passed.shape[1] + 1)).sin().to(passed))
            losses = _cross_entropy(scores, self._words.new_zeros(len(trials)))
            return torch.cat([scores.double(), losses[:, None]], 1)

        key = "tail", arithmetic(passed)
        if key not in self._alike:
            self._alike[key] = treats_rows_alike(compute, self.cut_batch_size, trials=16)
        return self._alike[key]

    def _finish(self, passed: Tensor) -> Tensor:
        if self.anatomy is None:
            return passed  # the label words' logits already
        out = self.model.get_output_embeddings()
        bias = None if getattr(out, "bias", None) is None else out.bias[self._words]
        return linear(self._head(passed), out.weight[self._words], bias)

    def _head(self, passed: Tensor) -> Tensor:
        # The output embedding's input.
        assert self.anatomy is not None
        hidden = passed if self.cut is None else self.cut.rest(self.model, passed)
        states: Tensor = self.anatomy.head(self.model, hidden)
        return states

    @torch.no_grad()
    def _passed(self, records: Records, progress: str | None = None) -> Tensor:
        # Of each record at its label position: what passes the cut, or the last hidden state, or the words' logits.
        shapes: dict[tuple[int, bool], list[int]] = {}
        for row, ids in enumerate(records.ids):
            wide = self._width(len(ids))
            shapes.setdefault((wide, wide == len(ids)), []).append(row)
        passed = torch.empty(0, self.model.config.hidden_size, dtype=self.model.dtype, device=self.device)
        with tqdm(total=len(records), desc=progress, unit="text", disable=progress is None, leave=False) as bar:
            for shape, rows in sorted(shapes.items()):
                size = self.physical_batch_size if self._passes_alike(*shape) else 1
                for block, real in filled(np.array(rows), size):
                    told = self._forward(records[block], shape[0])[1][:real]
                    if not len(passed):
                        passed = told.new_empty(len(records), *told.shape[1:])
                    passed[torch.from_numpy(block[:real]).to(self.device)] = told
                    bar.update(real)
        return passed

    def _width(self, length: int) -> int:
        if self.physical_batch_size == 1:
            return length
        return width(length, self.limit)

    def _passes_alike(self, wide: int, full: bool) -> bool:
        def compute(trials: Sequence[int]) -> Tensor:
            length, nobody = wide if full else wide - 1, np.zeros(len(trials), dtype=np.int64)
            ids = [((7 + 4 * trial) * np.arange(length) + 5) % self.model.config.vocab_size for trial in trials]
            states, told = self._forward(Records(tuple(ids), nobody + length - 1, nobody), wide)
            return torch.cat([states.reshape(len(trials), -1), told], 1)

        key = wide, full, arithmetic(next(iter(self.params.values())))
        if key not in self._alike:
            self._alike[key] = treats_rows_alike(compute, self.physical_batch_size, trials=2)
        return self._alike[key]

    def _forward(self, records: Records, wide: int) -> tuple[Tensor, Tensor]:
        # The states at all positions, and of them what is told of each record.
        states = self._states(records, wide)
        at = states[torch.arange(len(records)), torch.from_numpy(records.position)]
        return states, at[:, self._words] if self.anatomy is None else at

    def _states(self, records: Records, wide: int) -> Tensor:
        pad = self.encoder.tokenizer.pad_token_id
        ids = np.full((len(records), wide), 0 if pad is None else pad)
        mask = np.zeros_like(ids)
        for row, tokens in enumerate(records.ids):
            ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
        # Padding goes to the right, where a causal model never looks back from and a mask keeps others away from.
        inputs = self._inputs(torch.from_numpy(ids).to(self.device), torch.from_numpy(mask).to(self.device))
        return self._caught(inputs)

    def _inputs(self, ids: Tensor, mask: Tensor) -> dict[str, Any]:
        return {"input_ids": ids, "attention_mask": mask} | ({} if self.encoder.masked else {"use_cache": False})

    def _caught(self, inputs: dict[str, Any]) -> Tensor:
        # (b, length, h): what enters the cut, or the last hidden states; of an anatomy that is not listed, the logits.
        if self.anatomy is None:  # what lies between the hidden states and the logits is known to the model alone
            logits: Tensor = self.model(**inputs).logits
            return logits
        caught: list[Tensor] = []
        hooks = []
        if self.cut is not None and self.cut.entry is not None:
            entry = self.model.get_submodule(self.cut.entry)
            hooks.append(entry.register_forward_pre_hook(lambda module, inputs: caught.append(inputs[0])))
        try:
            caught.append(self.model.base_model(**inputs).last_hidden_state)
        finally:
            for hook in hooks:
                hook.remove()
        return caught[0]


def _cross_entropy(scores: Tensor, label: Tensor) -> Tensor:
    # In float64 from the logits on: the difference of two losses is what counts.
    return cross_entropy(scores.double(), label, reduction="none")


def _filled(rows: Tensor, size: int) -> Tensor:
    if len(rows) == size:
        return rows
    block = rows.new_zeros(size, *rows.shape[1:])
    block[: len(rows)] = rows
    return block
