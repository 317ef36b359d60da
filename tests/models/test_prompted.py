"""The prompted model: what is trained of it, in which precision, and that it comes back."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dpzo import GaussianDirection
from dpzo.errors import Refusal
from dpzo.estimators import two_point
from dpzo.models.load import load
from dpzo.models.prompted import PromptedModel
from dpzo.tasks import Example

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
