"""Each record's own gradient, in blocks: of what follows a model's cut, of a prefix, or of a whole model."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

from dpzo.models.encoding import Records
from dpzo.models.prompted import PromptedModel
from reproduce.prefix import PrefixModel

Gradients = dict[str, Tensor]
"""(b, *shape) by the tensor's name: the gradients of b records."""

_AT_ONCE = 16  # gradients of records held at once; of a whole model, one


def per_record(model: PromptedModel, records: Records) -> Iterator[Gradients]:
    """The gradients of the records' losses with respect to ``model.params``, block after block.

    A record's gradient may change by rounding with the other records of its block.
    """
    if isinstance(model, PrefixModel):
        for block in _blocks(records, _AT_ONCE):
            yield _of_prefix(model, block)
    elif model.trains_tail_only:
        for block in _blocks(records, _AT_ONCE):
            yield _of_tail(model, block)
    else:
        for record in _blocks(records, 1):
            yield _of_whole(model, record)


def _blocks(records: Records, size: int) -> Iterator[Records]:
    for start in range(0, len(records), size):
        yield records[np.arange(start, min(start + size, len(records)))]


def _of_whole(model: PromptedModel, record: Records) -> Gradients:
    # One backward pass: memory for one gradient, and a tensor that is used twice (tied) gets the sum of both.
    with _tracked(model):
        gradients = torch.autograd.grad(_loss(model, record), list(model.params.values()), materialize_grads=True)
    return {name: g[None] for name, g in zip(model.params, gradients, strict=True)}


def _of_prefix(model: PrefixModel, records: Records) -> Gradients:
    with model.copies(len(records)) as own:
        gradients = torch.autograd.grad(_loss(model, records), list(own.values()))
    return dict(zip(own, gradients, strict=True))


def _loss(model: PromptedModel, records: Records) -> Tensor:
    passed = records.passed
    if passed is None:
        passed = model._forward(records, max(model._width(len(ids)) for ids in records.ids))[1]
    scores = model._finish(passed)
    return cross_entropy(scores.float(), torch.from_numpy(records.label).to(model.device), reduction="sum")


@contextmanager
def _tracked(model: PromptedModel) -> Iterator[None]:
    before = {name: t.requires_grad for name, t in model.params.items()}
    try:
        for t in model.params.values():
            t.requires_grad_()
        yield
    finally:
        for name, t in model.params.items():
            t.requires_grad_(before[name])


def _of_tail(model: PromptedModel, records: Records) -> Gradients:
    # Small and without attention, so that a block goes through at once.
    tail, weights = _Tail(model), {f"model.{name}": t.detach() for name, t in model.params.items()}

    def loss(weights: dict[str, Tensor], passed: Tensor, label: Tensor) -> Tensor:
        return cross_entropy(functional_call(tail, weights, (passed[None],)).float(), label[None])

    each = vmap(grad(loss), in_dims=(None, 0, 0))
    gradients = each(weights, records.passed, torch.from_numpy(records.label).to(model.device))
    return {name: gradients[f"model.{name}"] for name in model.params}


class _Tail(nn.Module):
    # What follows the cut, as a module, so that functional_call can replace its weights.
    def __init__(self, model: PromptedModel) -> None:
        super().__init__()
        self.model = model.model
        self.finish = [model._finish]

    def forward(self, passed: Tensor) -> Tensor:
        return self.finish[0](passed)
