"""Language models by name: a packaged one, a folder, or an id on the Hugging Face hub."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
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
        Refusal: no such folder or packaged model and no hub to be reached; a model that is neither masked nor causal;
            a device that this machine does not have.
    """
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise Refusal(f"the device {device}", "a machine or a torch without CUDA", "Use --device cpu.")
    source = str(fetch(name, assets_dir=assets_dir)) if name in PACKAGED else name
    try:
        config = AutoConfig.from_pretrained(source)
        masked = _is_masked(config)
        kind = AutoModelForMaskedLM if masked else AutoModelForCausalLM
        tokenizer = AutoTokenizer.from_pretrained(source)
        model: Any = kind.from_pretrained(source, dtype=torch.float32)
    except (OSError, ValueError) as error:
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
