"""Answers of several tokens, against the mean log-likelihood worked out record by record."""

from typing import Any

import numpy as np
import pytest
import torch

from dpzo import GaussianDirection
from dpzo.errors import Refusal
from dpzo.estimators import two_point
from dpzo.models.answers import AnswerModel
from dpzo.models.encoding import Encoder
from dpzo.models.prompted import PromptedModel
from dpzo.tasks import Example, Prompt, get_task

Texts = tuple[Example, ...]
CAUSAL = ["llama", "mistral", "qwen2", "opt", "gpt2", "gpt_neox", "granite"]
ANSWERS = (" great film", " terribly dull plot", " no")


def answering(one: Any, *words: str, **options: Any) -> AnswerModel:
    prompt = Prompt("{text} It was", words)
    task = get_task("sst2")
    return AnswerModel(one.model, Encoder(one.tokenizer, task, prompt, masked=False, single_token=False), **options)


@pytest.mark.parametrize("family", CAUSAL)
def test_scores_are_mean_log_likelihoods_of_the_answers_tokens(loaded: Any, examples: Texts, family: str) -> None:
    one = loaded(family)
    model = answering(one, *ANSWERS)
    lengths = [len(word) for word in model.encoder.words]
    assert len(set(lengths)) > 1
    records = model.encode([Example(e.texts, i % 3) for i, e in enumerate(examples)])
    expected = torch.empty(len(examples), 3)
    for i, ids in enumerate(records.ids):
        for j, word in enumerate(model.encoder.words):
            whole = torch.tensor([*ids, *word])[None]
            with torch.no_grad():
                told = one.model(input_ids=whole).logits[0].double().log_softmax(-1)
            expected[i, j] = sum(told[len(ids) - 1 + k, token] for k, token in enumerate(word)) / len(word)
    torch.testing.assert_close(model.scores(records), expected, atol=1e-5, rtol=1e-5)
    losses = model.losses(records)
    by_hand = torch.nn.functional.cross_entropy(expected.double(), torch.from_numpy(records.label), reduction="none")
    torch.testing.assert_close(losses, by_hand, atol=1e-5, rtol=1e-5)
    alone = torch.cat([model.losses(records[np.array([i])]) for i in range(len(records))])
    torch.testing.assert_close(losses, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", CAUSAL)
def test_answers_of_one_token_are_label_words(loaded: Any, prompted: Any, examples: Texts, family: str) -> None:
    words, answers = prompted(family), answering(loaded(family), " terrible", " great")
    left, right = words.scores(words.encode(examples)), answers.scores(answers.encode(examples))
    torch.testing.assert_close(left.log_softmax(-1), right.log_softmax(-1), atol=1e-5, rtol=1e-5)


def test_it_trains_like_any_model_and_never_from_a_cut(loaded: Any, examples: Texts) -> None:
    model = answering(loaded("llama"), *ANSWERS, trainable=("model.norm.weight",))
    assert isinstance(model, PromptedModel)
    assert not model.trains_tail_only
    records = model.encode(examples)
    assert records.passed is None
    before = model.params.snapshot()
    v = two_point(model, records, GaussianDirection().draw(model.params, 1), 1e-2)
    assert np.abs(v).min() > 0
    assert all(torch.equal(t, before[name]) for name, t in model.params.items())


def test_a_masked_model_is_refused(loaded: Any) -> None:
    one, task = loaded("roberta"), get_task("sst2")
    encoder = Encoder(one.tokenizer, task, task.masked, masked=True)
    with pytest.raises(Refusal, match=r"a causal model to score whole answers; got a masked one"):
        AnswerModel(one.model, encoder)
