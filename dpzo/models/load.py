"""Language models by name: a packaged one, a folder, or an id on the Hugging Face hub. None of its code is run.

Weights come from safetensors files, which hold numbers alone; a pickled checkpoint is a program.
"""

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

from dpzo.assets import fetch
from dpzo.errors import Refusal

PACKAGED = ("smollm2-135m", "bert-tiny")
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack")


@dataclass(frozen=True)
class Loaded:
    """A language model with its tokenizer; ``masked`` tells which kind."""

    name: str
    model: Any
    tokenizer: Any
    masked: bool


def load(name: str, *, device: str = "cpu", assets_dir: Path | None = None) -> Loaded:
    """Load a language model in float32 (transformers alone would take the checkpoint's type, often half precision).

    Raises:
        Refusal: no such folder or packaged model and no hub to be reached; a broken folder; weights or a tokenizer
            that are not there; weights in pickled files alone; a model that comes with code of its own; one that is
            neither masked nor causal; a device that this machine does not have.
    """
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise Refusal("a device out of cpu and cuda", repr(device), "Use --device cpu or --device cuda.")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise Refusal(f"the device {device}", "a machine or a torch without CUDA", "Use --device cpu.")
    source = str(fetch(name, assets_dir=assets_dir)) if name in PACKAGED else name
    if not is_hub_id(source):
        source = str(_checked(name, Path(source).expanduser()))
    try:
        # Each is told to run no code: else transformers asks the terminal, and a "y" runs what came with the weights.
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        _refuse_code(name, getattr(config, "auto_map", None))
        masked = _is_masked(config)
        kind = AutoModelForMaskedLM if masked else AutoModelForCausalLM
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        _refuse_code(name, tokenizer.init_kwargs.get("auto_map"))
        whole: Any = kind.from_pretrained(
            source, dtype=torch.float32, output_loading_info=True, use_safetensors=True, trust_remote_code=False
        )
        model, report = whole
        _check_whole(name, model, tokenizer, report["missing_keys"])
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        if isinstance(error, Refusal):
            raise
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise _unknown(name, reason) from error
    model.requires_grad_(False)
    return Loaded(name, model.to(device), tokenizer, masked)


def is_hub_id(name: str) -> bool:
    """Whether a name can only be meant for the hub: an id such as ``owner/model``, and no path that was mistyped."""
    path = Path(name).expanduser()
    looks = re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name) is not None
    return looks and not path.exists() and not (len(path.parts) > 1 and path.parent.is_dir())


def _checked(name: str, folder: Path) -> Path:
    if not folder.is_dir():
        raise _unknown(name, "a file, not a folder" if folder.exists() else "no such folder")
    for file in ("config.json", "tokenizer_config.json"):
        auto_map = None
        with suppress(OSError, ValueError, AttributeError):  # what is broken there is told by transformers
            auto_map = json.loads((folder / file).read_text("utf-8")).get("auto_map")
        _refuse_code(name, auto_map)
    pickled = sorted(path.name for kind in _PICKLED for path in folder.glob(kind))
    adapter = (folder / "adapter_config.json").exists() and not (folder / "adapter_model.safetensors").exists()
    if pickled and (adapter or not any(folder.glob("*.safetensors"))):
        raise Refusal(
            "weights in safetensors files, which hold numbers and no code",
            f"{name!r} with {pickled[0]} alone",
            "Load it where you trust it, and save it by save_pretrained.",
        )
    return folder


def _refuse_code(name: str, auto_map: Any) -> None:
    if auto_map:
        raise Refusal(
            "a model that transformers knows, without code of its own",
            f"{name!r} with an auto_map to such code",
            "dpzo runs no code that comes with weights. If transformers knows the architecture, take auto_map out of "
            "config.json and tokenizer_config.json.",
        )


def _unknown(name: str, reason: str) -> Refusal:
    return Refusal(
        f"a packaged model ({', '.join(PACKAGED)}), a folder or a reachable hub id",
        f"{name!r}: {reason}",
        "Give a folder that holds the model, connect to the hub, or take a packaged model.",
    )


def _check_whole(name: str, model: Any, tokenizer: Any, missing: set[str]) -> None:
    # transformers makes up what is not in a checkpoint: random weights, or a tokenizer without a vocabulary.
    if absent := sorted(set(missing) & {n for n, _ in model.named_parameters()}):
        what = f"{name!r} without {', '.join(absent[:3])}{' and others' if len(absent) > 3 else ''}"
        raise Refusal(f"all weights of a {type(model).__name__}", what, "Give the whole model, with its head.")
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):
        raise Refusal("a tokenizer beside the model", f"{name!r} without one", "Save the tokenizer into its folder.")


def _is_masked(config: Any) -> bool:
    architectures = config.architectures or []
    if any(a.endswith("ForMaskedLM") for a in architectures):
        return True
    if any(a.endswith(("ForCausalLM", "LMHeadModel")) for a in architectures):
        return False
    raise Refusal(
        "a masked or causal language model",
        f"a {config.model_type} for {architectures or 'nothing stated'}",
        "Choose a checkpoint with a language-model head.",
    )
