"""A record's own gradient, by three ways, against automatic differentiation of that record alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from dpzo import Streams
from dpzo.models.encoding import Encoder
from dpzo.models.load import load
from dpzo.models.prompted import PromptedModel
from dpzo.tasks import Example, get_task
from reproduce.first_order import FirstOrder, add_clipped, dp_adamw, first_order_plan
from reproduce.gradients import per_record
from reproduce.last_prefix import prefixed
from reproduce.prefix import Prefix

TASK = get_task("mr")
EXAMPLES = [Example((" ".join([("bad", "good")[i % 2], "plot"] * (1 + i % 7)) + ".",), i % 2) for i in range(20)]
HEADS = {"bert": "cls.predictions.transform.*", "roberta": "lm_head.dense.*"}


@pytest.fixture(scope="module", params=["roberta", pytest.param("bert-tiny", marks=pytest.mark.assets)])
def loaded(request, roberta):
    return load(str(roberta) if request.param == "roberta" else request.param)


@pytest.fixture(scope="module")
def encoder(loaded):
    return Encoder(loaded.tokenizer, TASK, TASK.masked, masked=True)


def alone(model, encoder, records, i):
    """The gradients of record i through the model's own logits; a tied tensor stands under one name."""
    weights = {name: t.detach().clone().requires_grad_() for name, t in model.named_parameters()}
    known = {"input_ids": torch.from_numpy(records.ids[i])[None]}
    logits = torch.func.functional_call(model, weights, kwargs=known | {"attention_mask": known["input_ids"] * 0 + 1})
    words = torch.tensor([word[0] for word in encoder.words])
    loss = cross_entropy(logits.logits[0, records.position[i]][words], torch.tensor(records.label[i]))
    return dict(zip(weights, torch.autograd.grad(loss, list(weights.values()), materialize_grads=True), strict=True))


def together(model, records):
    blocks = list(per_record(model, records))
    return {name: torch.cat([block[name] for block in blocks]) for name in model.params}, blocks


def test_of_a_whole_model(loaded, encoder):
    """Kills: a tied matrix with the gradient of one of its uses, records added up, many gradients held at once."""
    model = PromptedModel(loaded.model, encoder)
    assert loaded.model.get_output_embeddings().weight is loaded.model.get_input_embeddings().weight
    records = model.encode(EXAMPLES[:6])
    found, blocks = together(model, records)
    assert {len(g) for block in blocks for g in block.values()} == {1}
    for i in range(6):
        for name, expected in alone(loaded.model, encoder, records, i).items():
            torch.testing.assert_close(found[name][i], expected, atol=2e-6, rtol=1e-3)
    assert not any(t.requires_grad for t in loaded.model.parameters())


def test_behind_a_cut_and_without_it_they_are_the_same(loaded, encoder):
    trained = (HEADS[loaded.model.config.model_type],)
    cut, whole = (PromptedModel(loaded.model, encoder, trained) for _ in range(2))
    whole.cut = None
    found, expected = (together(model, model.encode(EXAMPLES))[0] for model in (cut, whole))
    for name in cut.params:
        torch.testing.assert_close(found[name], expected[name], atol=2e-6, rtol=1e-3)


@pytest.mark.parametrize("last_only", [False, True])
def test_of_a_prefix(loaded, encoder, last_only):
    """Kills: one copy of the prefix for several records."""
    model = prefixed(loaded.model, encoder, Prefix(4, last_only))
    records = model.encode(EXAMPLES)
    found, _ = together(model, records)
    for i in range(len(records)):
        model._read = {name: t.detach().clone().requires_grad_() for name, t in model.params.items()}
        one = records[np.array([i])]
        passed = model._forward(one, len(one.ids[0]))[1] if one.passed is None else one.passed
        loss = cross_entropy(model._finish(passed), torch.from_numpy(one.label))
        for (name, g), t in zip(
            model._read.items(), torch.autograd.grad(loss, list(model._read.values())), strict=True
        ):
            assert g.grad is None
            torch.testing.assert_close(found[name][i], t, atol=2e-6, rtol=1e-3)


def test_of_no_records(loaded, encoder):
    for model in (PromptedModel(loaded.model, encoder), prefixed(loaded.model, encoder, Prefix(4))):
        assert list(per_record(model, model.encode(EXAMPLES)[np.array([], dtype=np.int64)])) == []


def test_each_record_is_clipped_and_what_is_not_finite_is_none():
    """Kills: no clip, a clip of each tensor by itself or of the block, a NaN that spreads."""
    a, b = torch.tensor([[3.0], [0.03], [torch.nan], [1.0]]), torch.tensor([[4.0], [0.04], [1.0], [torch.inf]])
    total = {"a": torch.zeros(1), "b": torch.ones(1)}
    add_clipped(total, {"a": a, "b": b}, 0.5)
    torch.testing.assert_close(total, {"a": torch.tensor([0.3 + 0.03]), "b": torch.tensor([1 + 0.4 + 0.04])})


def made(kind, loaded, encoder):
    if kind in ("every block", "last block"):
        return prefixed(loaded.model, encoder, Prefix(4, kind == "last block"))
    return PromptedModel(loaded.model, encoder, ("*",) if kind == "whole" else (HEADS[loaded.model.config.model_type],))


@pytest.mark.parametrize("kind", ["whole", "head", "every block", "last block"])
def test_dp_adamw_clips_each_record_and_adds_one_noise(loaded, encoder, kind, monkeypatch):
    """Kills: a batch's gradient clipped as one (the released code's way), wrong noise, the realised size."""
    model = made(kind, loaded, encoder)
    train = model.encode(EXAMPLES)
    gradients = together(model, train)[0]
    norms = torch.sqrt(sum(g.flatten(1).square().sum(1) for g in gradients.values()))
    settings = FirstOrder(steps=1, batch_size=7, learning_rate=1e-3, clip_threshold=float(norms.median()))
    plan = first_order_plan(settings, len(train), 4.0, 1e-2)
    start = model.params.snapshot()
    streams = Streams.not_private(1, 2)
    batch = torch.from_numpy(next(plan.sampler.batches(len(train), range(1), streams.private)))
    assert len(batch) != 7
    assert norms[batch].min() < settings.clip_threshold < norms[batch].max()
    source, told = streams.noise.at(0), {}
    for name, g in gradients.items():
        clipped = sum(g[i] * min(1.0, settings.clip_threshold / float(norms[i])) for i in batch)
        noise = plan.mechanism.noise_multiplier * settings.clip_threshold * source.normal(clipped.numel())
        told[name] = (clipped + torch.tensor(noise, dtype=torch.float32).view(clipped.shape)) / 7
    released = []

    class Watched(torch.optim.AdamW):
        def step(self):
            released.extend(t.grad.clone() for t in self.param_groups[0]["params"])
            super().step()

    monkeypatch.setattr(torch.optim, "AdamW", Watched)
    try:
        list(dp_adamw(plan, settings, model, train, Streams.not_private(1, 2)))
        moved = {name: t - start[name] for name, t in model.params.snapshot().items()}
    finally:
        model.params.restore(start)
    for name, g in zip(told, released, strict=True):
        torch.testing.assert_close(g, told[name], atol=1e-6 * settings.clip_threshold, rtol=1e-3)
        # AdamW's first step
        torch.testing.assert_close(moved[name], -1e-3 * g / (g.abs() + 1e-8), atol=2e-6, rtol=1e-3)


def test_a_run_on_the_whole_model_learns(loaded, encoder):
    model = PromptedModel(loaded.model, encoder)
    train, start = model.encode(EXAMPLES), model.params.snapshot()
    before = model.losses(train).mean()
    own = FirstOrder(10, 10, 1e-4, 1.0)
    plan = first_order_plan(own, len(train), 4.0, 1e-2)
    plan = replace(plan, mechanism=replace(plan.mechanism, noise_multiplier=1e-4))
    try:
        list(dp_adamw(plan, own, model, train, Streams.not_private(1, 2)))
        assert model.losses(train).mean() < before - 0.05
    finally:
        model.params.restore(start)
