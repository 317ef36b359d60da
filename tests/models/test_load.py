"""Models by name, and every way in which a name can be no model."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from dpzo.errors import Refusal
from dpzo.models.load import load

Folder = Callable[[str], Path]


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def mine(folder: Folder, tmp_path: Path) -> Path:
    """A RoBERTa folder to spoil."""
    return Path(shutil.copytree(folder("roberta"), tmp_path / "mine"))


@pytest.mark.parametrize(("family", "masked"), [("roberta", True), ("bert", True), ("gpt2", False), ("llama", False)])
def test_a_folder_is_loaded_with_its_tokenizer_and_its_kind(folder: Folder, family: str, masked: bool) -> None:
    one = load(str(folder(family)))
    assert one.masked is masked
    assert one.model.config.model_type == family
    assert one.tokenizer.decode(one.tokenizer("great", add_special_tokens=False)["input_ids"]) == "great"
    assert not any(p.requires_grad for p in one.model.parameters())
    assert one.name == str(folder(family))


@pytest.mark.assets
def test_a_packaged_model_is_loaded_by_its_name() -> None:
    one = load("bert-tiny")
    assert one.masked
    assert sum(p.numel() for p in one.model.parameters()) == 4_416_698
    assert {p.dtype for p in one.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", ["no-such/model", "nosuchmodel", "./no such folder", "/", "", "a/b/c"])
def test_an_unknown_name_is_refused_with_the_ways_out(name: str) -> None:
    with pytest.raises(Refusal) as refusal:
        load(name)
    text = str(refusal.value)
    assert text.startswith("expected a packaged model (smollm2-135m, bert-tiny), a folder or a reachable hub id; got ")
    assert repr(name) in text
    assert "\n" not in text
    assert text.endswith("Give a folder that holds the model, connect to the hub, or take a packaged model.")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_a_gpu_that_is_not_there_is_refused_before_anything_is_loaded(device: str) -> None:
    with pytest.raises(Refusal, match=f"the device {device}; got .*without CUDA.*--device cpu"):
        load("no-such/model", device=device)


@pytest.mark.parametrize("device", ["gpu", "tpu", "cpu:x"])
def test_a_device_that_does_not_exist_is_refused(folder: Folder, device: str) -> None:
    with pytest.raises(Refusal, match="device"):
        load(str(folder("roberta")), device=device)


def test_a_model_without_a_language_head_is_refused(mine: Path) -> None:
    config = transformers.AutoConfig.from_pretrained(mine)
    transformers.RobertaModel(config).save_pretrained(mine)
    with pytest.raises(Refusal, match=r"a masked or causal language model; got a roberta for \['RobertaModel'\]"):
        load(str(mine))
    raw = json.loads((mine / "config.json").read_text())
    del raw["architectures"]
    (mine / "config.json").write_text(json.dumps(raw))
    with pytest.raises(Refusal, match="a roberta for nothing stated"):
        load(str(mine))


def test_a_checkpoint_that_lacks_some_weights_is_refused(mine: Path) -> None:
    config = transformers.AutoConfig.from_pretrained(mine)
    transformers.RobertaModel(config).save_pretrained(mine)
    raw = json.loads((mine / "config.json").read_text())
    raw["architectures"] = ["RobertaForMaskedLM"]
    (mine / "config.json").write_text(json.dumps(raw))
    # transformers fills the gap with random numbers and a warning: a random head is nobody's model.
    with pytest.raises(Refusal, match=r"lm_head\.dense"):
        load(str(mine))


def spoil(path: Path, how: str) -> None:
    weights = path / "model.safetensors"
    if how == "truncated weights":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif how == "cut in the header":
        weights.write_bytes(weights.read_bytes()[:100])
    elif how == "empty weights":
        weights.write_bytes(b"")
    elif how == "no weights":
        weights.unlink()
    elif how == "broken config":
        (path / "config.json").write_text('{"model_type": "rob')
    elif how == "no config":
        (path / "config.json").unlink()
    elif how == "unknown model type":
        (path / "config.json").write_text('{"model_type": "nosuch", "architectures": ["NoSuchForMaskedLM"]}')
    elif how == "other shapes":
        raw: dict[str, Any] = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps(raw | {"intermediate_size": 64}))
    elif how == "broken tokenizer":
        (path / "tokenizer.json").write_text('{"version": ')
    elif how == "no tokenizer":
        for file in path.glob("tokenizer*"):
            file.unlink()


@pytest.mark.parametrize(
    "how",
    [
        "truncated weights", "cut in the header", "empty weights", "no weights", "broken config", "no config",
        "unknown model type", "other shapes", "broken tokenizer", "no tokenizer",
    ],
)  # fmt: skip
def test_a_broken_folder_is_refused_in_one_line(mine: Path, how: str) -> None:
    spoil(mine, how)
    with pytest.raises(Refusal) as refusal:
        load(str(mine))
    assert "\n" not in str(refusal.value)
    assert str(mine) in str(refusal.value)
