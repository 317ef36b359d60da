"""Models by name, and every way in which a name can be no model."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from dpzo.errors import Refusal
from dpzo.models.load import is_hub_id, load

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


# Code that comes with weights


EVIL = """
from pathlib import Path
Path({mark!r}).touch()
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
class EvilConfig(PreTrainedConfig):
    model_type = "evil"
class EvilModel(PreTrainedModel):
    config_class = EvilConfig
class EvilTokenizer(PreTrainedTokenizerFast):
    pass
"""
MAPS = {
    "config": ("config.json", {"AutoConfig": "evil.EvilConfig"}),
    "masked model": ("config.json", {"AutoModelForMaskedLM": "evil.EvilModel"}),
    "any model": ("config.json", {"AutoModel": "evil.EvilModel"}),
    "tokenizer": ("tokenizer_config.json", {"AutoTokenizer": ["evil.EvilTokenizer", "evil.EvilTokenizer"]}),
}


def with_code(folder: Path, file: str, auto_map: dict[str, Any], model_type: str | None) -> Path:
    """Code in a model's folder, and the entries that lead there; return the mark that it leaves when it runs."""
    mark = folder.parent / "it ran"
    (folder / "evil.py").write_text(EVIL.format(mark=str(mark)))
    raw: dict[str, Any] = json.loads((folder / file).read_text()) | {"auto_map": auto_map}
    if model_type is not None and file == "config.json":
        raw["model_type"] = model_type
    (folder / file).write_text(json.dumps(raw))
    return mark


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("model_type", [None, "evil"], ids=["known type", "unknown type"])
def test_code_in_a_folder_is_never_run_even_when_the_terminal_says_yes(
    mine: Path, name: str, model_type: str | None
) -> None:
    """Kills: trust_remote_code left to its default, which asks (the way there is run below)."""
    mark = with_code(mine, *MAPS[name], model_type)
    program = (
        "import sys; from dpzo.errors import Refusal; from dpzo.models.load import load\n"
        "try: load(sys.argv[1])\nexcept Refusal as refusal: print('REFUSED', refusal)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", program, str(mine)], input="y\n" * 9, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "REFUSED expected a model that transformers knows, without code of its own" in done.stdout
    assert "[y/N]" not in done.stdout + done.stderr
    assert not mark.exists()


def test_the_same_folder_does_run_its_code_for_who_trusts_it(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without this the test above could pass for a folder whose code nothing would run."""
    mark = with_code(mine, *MAPS["config"], "evil")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    transformers.AutoConfig.from_pretrained(mine, trust_remote_code=True)
    assert mark.exists()


def test_every_loader_is_told_to_run_no_code_and_to_read_no_pickle(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, dict[str, Any]] = {}
    for name in ("AutoConfig", "AutoTokenizer", "AutoModelForMaskedLM"):
        kind = getattr(transformers, name)
        original = kind.from_pretrained

        def noted(source: str, *, name: str = name, original: Any = original, **options: Any) -> Any:
            told[name] = options
            return original(source, **options)

        monkeypatch.setattr(kind, "from_pretrained", noted)
    load(str(mine))
    assert {name: options["trust_remote_code"] for name, options in told.items()} == dict.fromkeys(told, False)
    assert len(told) == 3
    assert told["AutoModelForMaskedLM"]["use_safetensors"] is True


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.ckpt"])
def test_pickled_weights_are_refused_and_not_opened(mine: Path, tmp_path: Path, name: str) -> None:
    """Kills: a checkpoint that runs what its pickle says."""
    mark = tmp_path / "it ran"
    (mine / "model.safetensors").unlink()
    (mine / name).write_bytes(f"cposix\nsystem\n(S'touch {mark}'\ntR.".encode())
    with pytest.raises(Refusal, match=rf"safetensors files, which hold numbers and no code; got .*{name} alone"):
        load(str(mine))
    assert not mark.exists()


def test_pickled_weights_beside_safe_ones_are_left_alone(mine: Path) -> None:
    (mine / "pytorch_model.bin").write_bytes(b"anything")
    assert load(str(mine)).masked


@pytest.mark.parametrize("name", ["./none", "none/", "~/none at all", "/none/model", "a/b/c", "there/none", "C:\\none"])
def test_a_folder_that_does_not_exist_is_not_asked_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Kills: a mistyped path that goes to the hub, which waits for the network and then speaks of repositories."""
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)

    def asked(*args: object, **options: object) -> None:
        raise AssertionError("asked")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", asked)
    assert not is_hub_id(name)
    with pytest.raises(Refusal, match="no such folder"):
        load(name)
    (tmp_path / "file").touch()
    with pytest.raises(Refusal, match="a file, not a folder"):
        load("file")


@pytest.mark.parametrize("name", ["gpt2", "FacebookAI/roberta-large", "a.b/c_d-1.0", "none/model"])
def test_an_id_may_be_asked_of_the_hub(name: str) -> None:
    assert is_hub_id(name)
