"""Language models by name: a packaged one, a folder, or an id on the Hugging Face hub."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

from dpzo.assets import fetch
from dpzo.errors import Refusal

PACKAGED = ("smollm2-135m", "bert-tiny")


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
            that are not there; a model that is neither masked nor causal; a device that this machine does not have.
    """
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise Refusal("a device out of cpu and cuda", repr(device), "Use --device cpu or --device cuda.")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise Refusal(f"the device {device}", "a machine or a torch without CUDA", "Use --device cpu.")
    source = str(fetch(name, assets_dir=assets_dir)) if name in PACKAGED else name
    try:
        config = AutoConfig.from_pretrained(source)
        masked = _is_masked(config)
        kind = AutoModelForMaskedLM if masked else AutoModelForCausalLM
        tokenizer = AutoTokenizer.from_pretrained(source)
        whole: Any = kind.from_pretrained(source, dtype=torch.float32, output_loading_info=True)
        model, report = whole
        _check_whole(name, model, tokenizer, report["missing_keys"])
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        if isinstance(error, Refusal):
            raise
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise Refusal(
            f"a packaged model ({', '.join(PACKAGED)}), a folder or a reachable hub id",
            f"{name!r}: {reason}",
            "Give a folder that holds the model, connect to the hub, or take a packaged model.",
        ) from error
    model.requires_grad_(False)
    return Loaded(name, model.to(device), tokenizer, masked)


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
