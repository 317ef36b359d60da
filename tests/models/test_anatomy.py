"""Each family's short cuts, against the model's own forward pass on one record at a time."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import dpzo
from dpzo import Relation, Streams
from dpzo.models.anatomy import ANATOMIES
from dpzo.models.encoding import Records
from dpzo.tasks import Example

Maker = Callable[..., Any]
Texts = tuple[Example, ...]
MASKED = ("bert", "roberta")
WITH_TAIL = ("llama", "mistral", "qwen2", *MASKED)
LISTED = (*WITH_TAIL, "opt", "gpt2")


def by_hand(model: Any, records: Records) -> torch.Tensor:
    """The full logits of every record alone, without padding, at its label position, of the label words."""
    words = [word[0] for word in model.encoder.words]
    rows = []
    with torch.no_grad():
        for ids, position in zip(records.ids, records.position, strict=True):
            rows.append(model.model(input_ids=torch.from_numpy(ids)[None]).logits[0, position, words])
    return torch.stack(rows)


def test_these_are_the_listed_families() -> None:
    assert set(LISTED) == set(ANATOMIES)
    assert set(WITH_TAIL) == {name for name, anatomy in ANATOMIES.items() if anatomy.cuts}


@pytest.mark.parametrize("family", [*LISTED, "gpt_neox", "granite"])
def test_scores_are_the_models_own_logits(prompted: Maker, examples: Texts, family: str) -> None:
    model = prompted(family)
    records = model.encode(examples)
    assert (model.anatomy is None) == (family not in LISTED)
    assert len({len(ids) for ids in records.ids}) > 5
    own = by_hand(model, records)
    assert own.std(0).min() > 0.05  # the texts matter
    torch.testing.assert_close(model.scores(records), own, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("what", ["tail", "late"])
@pytest.mark.parametrize("family", WITH_TAIL)
def test_the_cached_tail_equals_the_full_model_wherever_its_parameters_are(
    prompted: Maker, examples: Texts, family: str, what: str
) -> None:
    model = prompted(family, what)
    assert model.trains_tail_only
    records, whole = model.encode(examples), model.encoder.encode(examples)
    assert records.passed.shape == (len(examples), 32)
    before = model.scores(records)
    torch.testing.assert_close(before, by_hand(model, whole), atol=1e-5, rtol=1e-5)
    torch.manual_seed(1)
    for t in model.params.values():
        t.data += 0.3 * torch.randn_like(t)
    after = model.scores(records)
    assert (after - before).abs().max() > 0.1
    own = by_hand(model, whole)
    torch.testing.assert_close(after, own, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.scores(whole), own, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("what", ["tail", "late"])
@pytest.mark.parametrize("family", WITH_TAIL)
def test_training_on_the_cache_is_training_without_it(prompted: Maker, examples: Texts, family: str, what: str) -> None:
    ends, scalars = [], []
    for cached in (True, False):
        model = prompted(family, what)
        records = model.encode(examples) if cached else model.encoder.encode(examples)
        assert (records.passed is not None) == cached
        plan = dpzo.dpzero(
            n=len(examples), steps=15, step_size=0.01, zo_eps=1e-2, clip_threshold=1.0, batch_size=4,
            noise_multiplier=1.0, relation=Relation.ADD_REMOVE,
        )  # fmt: skip
        steps = list(dpzo.run(plan, model, records, Streams.not_private(3, secret_seed=4)))
        scalars.append(torch.tensor([step.scalars[0] for step in steps]))
        ends.append(torch.cat([t.detach().flatten() for t in model.params.values()]))
    assert scalars[0].std() > 0.05
    torch.testing.assert_close(scalars[0], scalars[1], atol=2e-3, rtol=0)
    torch.testing.assert_close(ends[0], ends[1], atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    ("family", "outside"),
    [
        ("llama", "model.layers.1.self_attn.o_proj.weight"),
        ("llama", "model.layers.0.mlp.up_proj.weight"),
        ("llama", "lm_head.weight"),
        ("qwen2", "model.embed_tokens.weight"),  # tied: it is the output embedding too
        ("bert", "bert.encoder.layer.1.attention.output.dense.weight"),
        ("bert", "bert.encoder.layer.0.output.dense.weight"),
        ("roberta", "roberta.encoder.layer.1.attention.output.LayerNorm.weight"),
        ("roberta", "roberta.embeddings.word_embeddings.weight"),
    ],
)
def test_one_parameter_before_the_tail_and_nothing_is_cached(
    prompted: Maker, examples: Texts, family: str, outside: str
) -> None:
    model = prompted(family, (*prompted(family, "tail").params, outside))
    assert not model.trains_tail_only
    assert model.encode(examples).passed is None


@pytest.mark.parametrize("family", ["opt", "gpt2", "gpt_neox"])
def test_a_family_without_a_tail_never_caches(prompted: Maker, examples: Texts, family: str) -> None:
    last = {"opt": "model.decoder.final_layer_norm.*", "gpt2": "transformer.ln_f.*", "gpt_neox": "*final_layer_norm*"}
    model = prompted(family, (last[family],))
    assert not model.trains_tail_only
    assert model.encode(examples).passed is None


@pytest.mark.parametrize("family", WITH_TAIL)
def test_the_latest_cut_that_will_do_is_taken(prompted: Maker, family: str) -> None:
    late, tail = prompted(family, "late").cut, prompted(family, "tail").cut
    assert set(late.owned) < set(tail.owned)
    mixed = prompted(family, (*prompted(family, "late").params, *prompted(family, "tail").params)).cut
    assert mixed == tail


def test_layer_1_is_not_taken_for_layer_10_when_that_is_the_last() -> None:
    assert ANATOMIES["llama"].cut(["model.layers.1.mlp.up_proj.weight"], last=10) is None
    assert ANATOMIES["llama"].cut(["model.layers.10.mlp.up_proj.weight"], last=1) is None
    assert ANATOMIES["llama"].cut(["model.layers.10.mlp.up_proj.weight"], last=10) is not None


def test_masked_families_read_at_the_mask_and_causal_ones_at_the_end(prompted: Maker, examples: Texts) -> None:
    for family in LISTED:
        model = prompted(family)
        records = model.encode(examples)
        mask = model.encoder.tokenizer.mask_token_id
        for ids, position in zip(records.ids, records.position, strict=True):
            if family in MASKED:
                assert ids[position] == mask
            else:
                assert position == len(ids) - 1
