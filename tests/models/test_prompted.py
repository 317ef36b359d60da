"""The prompted model: what is trained of it, in which precision, and that it comes back."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dpzo import GaussianDirection, Ledger, Relation, Streams, dpzero, run
from dpzo.errors import Refusal
from dpzo.estimators import two_point
from dpzo.ledger import read
from dpzo.models.answers import AnswerModel
from dpzo.models.load import load
from dpzo.models.prompted import PromptedModel
from dpzo.tasks import Example, get_task

Maker = Callable[..., Any]
Texts = tuple[Example, ...]
TIED = {
    "roberta": "roberta.embeddings.word_embeddings.weight",
    "bert": "bert.embeddings.word_embeddings.weight",
    "gpt2": "transformer.wte.weight",
    "opt": "model.decoder.embed_tokens.weight",
    "qwen2": "model.embed_tokens.weight",
}


def test_patterns_choose_parameters_in_the_models_own_order(prompted: Maker) -> None:
    model = prompted("bert", ("*.output.LayerNorm.bias", "bert.embeddings.LayerNorm.*"))
    assert list(model.params) == [
        "bert.embeddings.LayerNorm.weight",
        "bert.embeddings.LayerNorm.bias",
        "bert.encoder.layer.0.attention.output.LayerNorm.bias",
        "bert.encoder.layer.0.output.LayerNorm.bias",
        "bert.encoder.layer.1.attention.output.LayerNorm.bias",
        "bert.encoder.layer.1.output.LayerNorm.bias",
    ]
    assert model.params.count == 6 * 32
    twice = prompted("bert", ("bert.embeddings.LayerNorm.weight", "*embeddings.LayerNorm.weight"))
    assert list(twice.params) == ["bert.embeddings.LayerNorm.weight"]


@pytest.mark.parametrize("pattern", ["nothing.*", "LayerNorm", "BERT.*", ""])
def test_a_pattern_that_matches_nothing_is_refused(prompted: Maker, pattern: str) -> None:
    with pytest.raises(Refusal, match=r"patterns that match names of parameters; got '.*'\. Names look like .*cls"):
        prompted("bert", ("bert.*", pattern))


def test_training_nothing_is_refused(prompted: Maker) -> None:
    with pytest.raises(Refusal, match="at least one non-empty tensor"):
        prompted("bert", ())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused_where_it_is_trained(loaded: Any, prompted: Maker, dtype: torch.dtype) -> None:
    encoder = prompted("gpt2").encoder
    model = loaded("gpt2").model.to(dtype)
    with pytest.raises(Refusal, match=rf"weights to train in float32; got {dtype}"):
        PromptedModel(model, encoder)


def test_a_half_precision_checkpoint_is_loaded_in_float32(loaded: Any, tmp_path: Path, examples: Texts) -> None:
    one = loaded("roberta")
    one.model.to(torch.bfloat16).save_pretrained(tmp_path)
    one.tokenizer.save_pretrained(tmp_path)
    assert '"bfloat16"' in (tmp_path / "config.json").read_text()
    again = load(str(tmp_path)).model
    assert {p.dtype for p in again.parameters()} == {torch.float32}
    assert not any(p.requires_grad for p in again.parameters())
    for name, p in one.model.named_parameters():
        assert torch.equal(p.float(), again.get_parameter(name))


@pytest.mark.parametrize("family", TIED)
def test_a_tied_embedding_is_trained_once_and_moves_at_both_ends(prompted: Maker, examples: Texts, family: str) -> None:
    model = prompted(family)
    ends = model.model.get_input_embeddings(), model.model.get_output_embeddings()
    assert ends[0].weight is ends[1].weight
    assert [name for name, t in model.params.items() if t is ends[0].weight] == [TIED[family]]
    assert model.params.count == sum(p.numel() for p in model.model.parameters())
    records = model.encode(examples)
    u = GaussianDirection().draw(model.params, 5)
    by_hand = PromptedModel(copy.deepcopy(model.model), model.encoder)
    u.add_(by_hand.params, 0.05)
    expected = by_hand.losses(records)
    home = {name: t.data_ptr() for name, t in model.params.items()}
    at_rest = model.losses(records)
    with model.params.moved(u, 0.05):
        assert ends[0].weight.data_ptr() == ends[1].weight.data_ptr() != home[TIED[family]]
        torch.testing.assert_close(model.losses(records), expected, atol=1e-6, rtol=1e-6)
    assert (expected - at_rest).abs().min() > 1e-4
    assert torch.equal(model.losses(records), at_rest)


@pytest.mark.parametrize("family", ["roberta", "llama", "gpt_neox"])
@pytest.mark.parametrize("what", ["*", "*norm*"])
def test_parameters_come_back_to_the_bit(prompted: Maker, examples: Texts, family: str, what: str) -> None:
    model = prompted(family, (what if family != "roberta" else what.replace("norm", "Norm"),))
    records = model.encode(examples)
    before = {name: t.detach().clone() for name, t in model.model.named_parameters()}
    u = GaussianDirection().draw(model.params, 9)
    v = two_point(model, records, u, 1e-3)
    assert v.shape == (len(examples),)
    assert np.isfinite(v).all()
    assert v.std() > 0
    assert all(torch.equal(t, before[name]) for name, t in model.model.named_parameters())


def test_the_estimate_is_the_derivative_along_the_direction(prompted: Maker, examples: Texts) -> None:
    model = prompted("roberta", ("roberta.encoder.layer.0.*", "lm_head.bias"))
    records = model.encode(examples)
    u = GaussianDirection().draw(model.params, 2)
    v = two_point(model, records, u, 1e-3)
    words = model._words
    dense = u.dense()
    for t in model.params.values():
        t.requires_grad_(True)
    for i, ids in enumerate(records.ids):
        logits = model.model(input_ids=torch.from_numpy(ids)[None]).logits[0, records.position[i], words]
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(records.label[i]))
        gradient = torch.autograd.grad(loss, list(model.params.values()), allow_unused=True)
        slope = sum((g * dense[n]).sum().item() for n, g in zip(model.params, gradient, strict=True) if g is not None)
        assert v[i] == pytest.approx(slope, rel=5e-3, abs=5e-3)


def long_task(length: int) -> Any:
    return replace(get_task("sst2"), max_length=length)


def test_a_task_longer_than_the_model_is_refused_when_they_meet(prompted: Maker) -> None:
    """Kills: positions that a long text exceeds at a random step; RoBERTa's positions read as the tokens it takes."""
    for family, most in (("bert", 300), ("roberta", 298), ("gpt2", 300), ("llama", 300)):
        model = prompted(family)
        assert model.limit == most
        model.encoder.task = long_task(most)
        again = PromptedModel(model.model, model.encoder)
        longest = again.encode([Example(("film " * 1000,), 0)])
        assert len(longest.ids[0]) == most
        assert torch.isfinite(again.losses(longest)).all()
        model.encoder.task = long_task(most + 1)
        with pytest.raises(Refusal, match=f"at most the {most} tokens.*max_length is {most + 1}"):
            PromptedModel(model.model, model.encoder)
    answers = prompted("gpt2", kind=AnswerModel)
    assert answers.limit == 300 - max(map(len, answers.encoder.words))


PLAN = dpzero(
    n=12, steps=2, step_size=1e-3, zo_eps=1e-3, clip_threshold=1.0, noise_multiplier=1.0, relation=Relation.ADD_REMOVE
)
SPOILS = {
    "a label beyond the words": lambda r: replace(r, label=np.where(np.arange(12) == 3, 2, r.label)),
    "a label of nobody": lambda r: replace(r, label=np.where(np.arange(12) == 3, -100, r.label)),
    "a token beyond the vocabulary": lambda r: replace(r, ids=(*r.ids[:3], r.ids[3] + 10**6, *r.ids[4:])),
    "a text beyond the positions": lambda r: replace(r, ids=(*r.ids[:3], np.ones(301, dtype=np.int64), *r.ids[4:])),
    "a position beyond the text": lambda r: replace(r, position=np.where(np.arange(12) == 3, 500, r.position)),
    "an empty text": lambda r: replace(r, ids=(*r.ids[:3], r.ids[3][:0], *r.ids[4:])),
}


@pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS)
@pytest.mark.parametrize("kind", [PromptedModel, AnswerModel])
def test_records_that_the_model_cannot_compute_are_refused_before_the_first_charge(
    prompted: Maker, examples: Texts, spoil: Any, kind: Any, tmp_path: Path
) -> None:
    model = prompted("gpt2", kind=kind)
    records = spoil(model.encode(examples))
    with Ledger(tmp_path / "ledger") as ledger, pytest.raises(Refusal, match="1 records without, such as number 3"):
        next(run(PLAN, model, records, Streams.secure(1), ledger=ledger))
    assert read(tmp_path / "ledger").charged == 0


def test_what_was_encoded_otherwise_is_refused(prompted: Maker, examples: Texts) -> None:
    whole, tail = prompted("llama"), prompted("llama", "tail")
    listed = np.array([object()] * 12)
    with pytest.raises(Refusal, match=r"records that model\.encode returned"):
        next(run(PLAN, whole, listed, Streams.secure(1)))
    with pytest.raises(Refusal, match="encoded for this model"):
        next(run(PLAN, whole, tail.encode(examples), Streams.secure(1)))
    assert len(list(run(PLAN, tail, tail.encode(examples), Streams.secure(1)))) == 2
    assert len(list(run(PLAN, whole, whole.encode(examples), Streams.secure(1)))) == 2


def test_half_a_character_is_refused_by_its_number(prompted: Maker, examples: Texts) -> None:
    with pytest.raises(Refusal, match="1 examples without, such as number 12") as refusal:
        prompted("bert").encode([*examples, Example(("secret \ud800",), 0)])
    assert "secret" not in str(refusal.value)


def test_dropout_in_a_prompted_model_is_refused_at_the_step(prompted: Maker, examples: Texts) -> None:
    """Kills: eval mode set when the model is made, and no more."""
    model = prompted("bert")
    steps = run(PLAN, model, model.encode(examples), Streams.secure(1))
    next(steps)
    model.model.train()
    with pytest.raises(Refusal, match="evaluation mode"):
        next(steps)
