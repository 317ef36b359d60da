"""A record's loss is its own: whatever stands beside it, in whatever order, in batches of whatever size."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import dpzo
from dpzo import Relation, Streams
from dpzo.models.answers import AnswerModel
from dpzo.tasks import Example

Maker = Callable[..., Any]
Texts = tuple[Example, ...]
WITH_TAIL = ("llama", "mistral", "qwen2", "bert", "roberta")
FAMILIES = (*WITH_TAIL, "opt", "gpt2", "gpt_neox")
ALL = ("*",)
PATHS = [
    *((family, ALL) for family in FAMILIES),
    *((family, what) for family in WITH_TAIL for what in ("tail", "late")),
]
NAMES = [f"{family}-{'all' if what == ALL else what}" for family, what in PATHS]
LONG = Example(("a good plot It was great actors dull film " * 12,), 0)


@pytest.mark.parametrize(("family", "what"), PATHS, ids=NAMES)
def test_padding_and_batching_change_a_loss_by_no_more_than_rounding(
    prompted: Maker, examples: Texts, family: str, what: Any
) -> None:
    """Kills: padding that is attended to. (That one size keeps every bit is test_independence's.)"""
    losses = []
    for size in (1, 3, 4, 16):
        model = prompted(family, what, physical_batch_size=size)
        losses.append(model.losses(model.encode([*examples, LONG])))
        assert losses[-1].shape == (len(examples) + 1,)
        assert losses[-1].dtype == torch.float64
        torch.testing.assert_close(losses[-1], losses[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_dropout_is_off_even_for_a_model_in_training_mode(
    loaded: Any, prompted: Maker, examples: Texts, family: str
) -> None:
    one = loaded(family)
    drops = [m.p for m in one.model.modules() if isinstance(m, torch.nn.Dropout)]
    assert family in ("llama", "mistral", "qwen2", "opt") or 0.5 in drops
    model = prompted(family)
    assert not any(m.training for m in model.model.modules())
    records = model.encode(examples)
    assert torch.equal(model.losses(records), model.losses(records))
    again = type(model)(model.model.train(), model.encoder)
    assert torch.equal(model.losses(records), again.losses(records))


def test_padding_tokens_need_not_exist_and_their_identity_does_not_matter(prompted: Maker, examples: Texts) -> None:
    for family in ("gpt2", "bert"):
        model = prompted(family)
        records = model.encode(examples)
        first = model.losses(records)
        model.encoder.tokenizer.pad_token = model.encoder.tokenizer.convert_ids_to_tokens(7)
        assert torch.equal(model.losses(records), first)
        model.encoder.tokenizer.pad_token = "[PAD]" if family == "bert" else None


@pytest.mark.parametrize("kind", ["full", "fallback", "cached", "answers"])
def test_an_empty_batch_has_no_losses_and_stops_no_run(prompted: Maker, examples: Texts, kind: str) -> None:
    model = {
        "full": lambda: prompted("bert"),
        "fallback": lambda: prompted("gpt_neox"),
        "cached": lambda: prompted("llama", "tail"),
        "answers": lambda: prompted("gpt2", kind=AnswerModel),
    }[kind]()
    records = model.encode(examples)
    nobody = records[np.array([], dtype=np.int64)]
    assert len(nobody) == 0
    assert model.losses(nobody).shape == (0,)
    assert model.scores(nobody).shape == (0, 2)
    plan = dpzo.dpzero(
        n=len(examples), steps=8, step_size=1e-3, zo_eps=1e-2, clip_threshold=1.0, batch_size=1,
        noise_multiplier=1.0, relation=Relation.ADD_REMOVE,
    )  # fmt: skip
    streams = Streams.not_private(0, secret_seed=1)
    private = Streams.not_private(0, secret_seed=1).private
    sizes = [len(b) for b in plan.sampler.batches(plan.n, range(plan.steps), private)]
    assert 0 in sizes
    steps = list(dpzo.run(plan, model, records, streams))
    assert len(steps) == 8
    assert all(np.isfinite(step.scalars).all() and step.scalars[0] != 0 for step in steps)


def test_losses_are_cross_entropies_over_the_words_alone(prompted: Maker, examples: Texts) -> None:
    model = prompted("roberta", task_name="sst5")
    records = model.encode([Example(e.texts, i % 5) for i, e in enumerate(examples)])
    scores = model.scores(records).double().numpy()
    by_hand = np.log(np.exp(scores).sum(1)) - scores[np.arange(len(scores)), records.label]
    np.testing.assert_allclose(model.losses(records).numpy(), by_hand, atol=1e-12)


@pytest.mark.assets
def test_bert_tiny_scores_what_its_own_forward_pass_does() -> None:
    from dpzo.models.encoding import Encoder
    from dpzo.models.load import load
    from dpzo.models.prompted import PromptedModel
    from dpzo.tasks import get_task

    one, task = load("bert-tiny"), get_task("sst2")
    assert one.masked
    long = "i watched [MASK] it twice and [SEP] i would not watch it again " * 9
    texts = ("a gorgeous, witty film", "dull", long)
    examples = [Example((text,), 1) for text in texts]
    encoder = Encoder(one.tokenizer, task, task.masked, masked=True)
    cached = PromptedModel(one.model, encoder, ("bert.encoder.layer.1.output.*",))
    records = encoder.encode(examples)
    words = one.tokenizer.convert_tokens_to_ids(["terrible", "great"])
    with torch.no_grad():
        own = [
            one.model(input_ids=torch.from_numpy(ids)[None]).logits[0, ids.tolist().index(103), words]
            for ids in records.ids
        ]
    assert [len(ids) for ids in records.ids][2] == 128
    torch.testing.assert_close(cached.scores(cached.encode(examples)), torch.stack(own), atol=1e-5, rtol=1e-5)
    full = PromptedModel(one.model, encoder, ("*",))
    torch.testing.assert_close(full.scores(full.encode(examples)), torch.stack(own), atol=1e-5, rtol=1e-5)
