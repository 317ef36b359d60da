"""SmolLM2's GGUF file -> a transformers folder in safetensors, fp32, checked tensor by tensor.

Run as a script in a process of its own: dequantising takes over a gigabyte that is given back at the end, and
what is set there (offline, quiet, CPU only) does not touch the caller's transformers.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

# A fine-tuned model is (base model, seeds, scalars), so the base has to be the same bits everywhere. The file's
# own digest will not do: its header is the serialiser's business.
SMOLLM2_TENSORS = "faf714ce5e44852b956c3b9adba96ebb99ce3341ac494296ed6d8b0939fab337"
_PROBES = {" great": [1109], " terrible": [13321], " good": [1123], " bad": [3309], "\n\n1": [1116, 33]}


def smollm2_to_safetensors(raw: Path, out: Path) -> None:
    """Convert the one GGUF file in `raw` into the folder `out`; Refusal if it cannot be done faithfully."""
    # Imported here, as the script itself needs nothing of dpzo.
    from dpzo.assets.child import ChildError, run
    from dpzo.errors import Refusal

    (gguf,) = raw.glob("*.gguf")
    settings = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-P", str(Path(__file__).absolute()), str(gguf), str(out)]
    try:
        run(command, work=raw, label="converting to safetensors, once", environment=settings)
    except ChildError as failure:
        raise Refusal(
            f"{gguf.name} turned into safetensors, which takes about 1.2 GB of memory",
            failure.last_line,
            "Versions known to do it: transformers 5.23.0, gguf 0.19.0, accelerate 1.15.0. Or use bert-tiny, "
            "a model folder or a hub id.",
        ) from None


def tensors_sha256(path: Path) -> str:
    """Digest of a safetensors file's names, types, shapes and numbers, whatever order its serialiser chose."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        start = file.tell()
        for name in sorted(header.keys() - {"__metadata__"}):
            about = header[name]
            dtype = {"F32": "torch.float32"}.get(about["dtype"], about["dtype"])
            digest.update(f"{name} {dtype} {tuple(about['shape'])}\n".encode())
            first, end = about["data_offsets"]
            file.seek(start + first)
            digest.update(file.read(end - first))
    return digest.hexdigest()


def _convert(gguf: Path, out: Path) -> None:
    import torch
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, trust_remote_code=False)
    model: Any = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32, trust_remote_code=False
    )
    # The loader drops the file's `pre = smollm`: digits are split off before bytes are grouped. Without it a
    # digit after two blanks or two line ends is cut otherwise than in pre-training.
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence(
        [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
    )
    tokenizer.model_max_length = model.config.max_position_embeddings
    # How it was loaded here is of no use to whoever loads it next.
    for leftover in ("is_local", "local_files_only"):
        tokenizer.init_kwargs.pop(leftover, None)
    # The weights are plain fp32 now, but transformers still calls them quantised and would refuse to save.
    model.hf_quantizer, model.is_quantized = None, False
    for leftover in ("quantization_config", "_model_name_or_path"):
        vars(model.config).pop(leftover, None)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    # safetensors makes its file 0600; a shared cache wants the mode that the umask gives.
    shutil.copymode(out / "config.json", out / "model.safetensors")


def _verify(out: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded: Any = AutoModelForCausalLM.from_pretrained(
        out, output_loading_info=True, trust_remote_code=False, use_safetensors=True
    )
    _, loading = loaded
    if any(loading.values()):
        raise SystemExit(f"the converted model does not load cleanly: {loading}")
    digest = tensors_sha256(out / "model.safetensors")
    if digest != SMOLLM2_TENSORS:
        raise SystemExit(f"the converted tensors have sha256 {digest}, not {SMOLLM2_TENSORS}")
    tokenizer: Any = AutoTokenizer.from_pretrained(out, trust_remote_code=False)
    for text, ids in _PROBES.items():
        if tokenizer(text).input_ids != ids:
            raise SystemExit(f"the converted tokenizer gives {tokenizer(text).input_ids} for {text!r}, not {ids}")


if __name__ == "__main__":
    _convert(Path(sys.argv[1]), Path(sys.argv[2]))
    _verify(Path(sys.argv[2]))
