"""PEFT's adapters under PromptedModel, as in the book's cookbook. PEFT is no dependency: skipped where it is not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import dpzo
from dpzo.models.prompted import PromptedModel
from dpzo.tasks import Example

peft = pytest.importorskip("peft")


def adapted(model: Any) -> tuple[Any, Any]:
    """(the wrapper, the model with adapters in it), as in the cookbook."""
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=["query", "value"]))
    return wrapped, model


def test_adapters_train_come_back_and_are_found(
    loaded: Callable[[str], Any], prompted: Callable[..., Any], examples: tuple[Example, ...], tmp_path: Path
) -> None:
    plain = prompted("bert")
    records = plain.encode(examples)
    before = plain.losses(records)
    wrapped, changed = adapted(plain.model)
    model = PromptedModel(changed, plain.encoder, ["*lora_*"])
    assert torch.equal(model.losses(records), before)

    plan = dpzo.dpzero(
        n=len(examples), steps=4, step_size=0.5, zo_eps=1e-2, clip_threshold=1.0, noise_multiplier=1.0,
        relation=dpzo.Relation.ADD_REMOVE, direction=dpzo.GaussianDirection(),
    )  # fmt: skip
    start = model.params.snapshot()
    steps = list(dpzo.run(plan, model, records, dpzo.Streams.secure(public_seed=1)))
    trained, after = model.params.snapshot(), model.losses(records)
    assert not torch.equal(after, before)
    alone = torch.cat([model.losses(model.encode([example])) for example in examples])
    assert torch.equal(alone, after)

    wrapped.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(loaded("bert").model, tmp_path).get_base_model()
    assert torch.equal(PromptedModel(again, plain.encoder, ["*lora_*"]).losses(records), after)

    model.params.restore(start)
    dpzo.replay(plan, model.params, steps)
    assert all(torch.equal(trained[name], weight) for name, weight in model.params.items())


def test_the_wrapper_itself_is_no_model(
    loaded: Callable[[str], Any], prompted: Callable[..., Any], examples: tuple[Example, ...]
) -> None:
    wrapped, _ = adapted(loaded("bert").model)
    model = PromptedModel(wrapped, prompted("bert").encoder, ["*lora_*"])
    with pytest.raises(AttributeError):
        model.losses(model.encode(examples))
