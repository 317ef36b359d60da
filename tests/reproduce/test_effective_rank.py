"""The Hessian's products against differences of the model's own losses, the estimate against the whole Hessian."""

import json

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from dpzo.assets import fetch
from dpzo.models.encoding import Encoder
from dpzo.models.load import load
from dpzo.models.prompted import PromptedModel
from dpzo.tasks import get_task, load_examples
from reproduce import effective_rank
from reproduce.effective_rank import hessian
from synthetic.curvature import curvature, exact_curvature

pytestmark = pytest.mark.assets
NORMS = ("bert.encoder.layer.1.output.LayerNorm.*", "cls.predictions.transform.LayerNorm.*")


def subject(patterns, dtype=torch.float32):
    task, loaded = get_task("mr"), load("bert-tiny")
    return PromptedModel(loaded.model.to(dtype), Encoder(loaded.tokenizer, task, task.masked, masked=True), patterns)


def texts(count):
    return load_examples(get_task("mr"), "train", packaged=fetch("mr"))[:count]


@pytest.mark.parametrize("patterns", [("*",), NORMS, ("bert.encoder.layer.0.attention.*",)])
def test_a_product_is_the_second_difference_of_the_losses(patterns, monkeypatch):
    """With and without a cut. Kills: a block of texts left out or weighed wrongly, a label that is another text's."""
    monkeypatch.setattr(effective_rank, "_TEXTS", 4)  # a block and a half
    model = subject(patterns, torch.float64)
    records = model.encode(texts(6))
    product = hessian(model, records)
    # A direction with curvature in it.
    v = product(torch.randn(model.params.count, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    v /= v.norm()
    bend = float(v @ product(v))
    start = {name: tensor.detach().clone() for name, tensor in model.params.items()}

    def loss(step):
        with torch.no_grad():
            for (name, tensor), piece in zip(
                model.params.items(), torch.split(v, [t.numel() for t in start.values()]), strict=True
            ):
                tensor.copy_(start[name] + step * piece.view(tensor.shape))
        return float(model.losses(records).mean())

    h = 1e-4
    second = (loss(h) - 2 * loss(0.0) + loss(-h)) / h**2
    assert bend == pytest.approx(second, rel=1e-3)


def test_a_part_of_what_is_trained_is_a_block_of_the_whole():
    model = subject(NORMS)
    records, names = model.encode(texts(5)), list(model.params)
    whole = torch.stack([hessian(model, records)(unit) for unit in torch.eye(512)])
    sizes = [tensor.numel() for tensor in model.params.values()]
    first, last = sizes[0], 512 - sizes[-1]
    v = torch.ones(first + 512 - last)
    part = hessian(model, records, (names[0], names[-1]))(v)
    kept = np.r_[:first, last:512]
    assert torch.allclose(part, whole[kept][:, kept].sum(1), rtol=1e-4, atol=1e-4 * float(whole.abs().max()))


def test_the_estimate_is_that_of_the_whole_hessian():
    """Of a language model's loss, whose eigenvalues are nearly all next to nothing. Kills: fewer than ten steps."""
    model = subject(NORMS)
    product = hessian(model, model.encode(texts(16)))
    exact = exact_curvature(product, 512)
    found = curvature(product, 512, probes=40, steps=30)
    assert found.norm == pytest.approx(exact.norm, rel=1e-3)
    assert abs(found.trace - exact.trace) < 6 * found.error
    assert found.error < 0.2 * exact.trace


def test_a_set_that_was_measured_is_kept(tmp_path, monkeypatch):
    """A run that stops in its second set goes on with it; table and picture come out of the lines."""
    monkeypatch.setattr(effective_rank, "SETS", {"bert-tiny": {"norms": NORMS, "later": NORMS[:1]}})
    app = typer.Typer()
    app.command()(effective_rank.main)
    asked = ["--models", "bert-tiny", "--texts", "4", "--probes", "2", "--steps", "3", "--out", str(tmp_path)]
    path = tmp_path / "effective_rank.jsonl"
    with monkeypatch.context() as broken:
        once = effective_rank.exact_curvature

        def stopped(*arguments, **more):
            if path.read_text():
                raise KeyboardInterrupt
            return once(*arguments, **more)

        broken.setattr(effective_rank, "exact_curvature", stopped)
        assert CliRunner().invoke(app, asked).exit_code != 0
    first = path.read_text()
    assert len(first.splitlines()) == 1
    told = CliRunner().invoke(app, asked)
    assert told.exit_code == 0, told.output
    assert path.read_text().startswith(first)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["cell"]["trained"], row["d"]) for row in rows] == [("norms", 512), ("later", 256)]
    lines = (tmp_path / "effective_rank.md").read_text().splitlines()
    assert [line.split("|")[2].strip() for line in lines[2:4]] == ["norms", "later"]
    assert (tmp_path / "effective_rank.png").stat().st_size > 5000


@pytest.mark.parametrize("wrong", [["--models", "gpt"], ["--texts", "0"], ["--texts", "2", "--probes", "1"]])
def test_refusals(wrong, tmp_path):
    app = typer.Typer()
    app.command()(effective_rank.main)
    told = CliRunner().invoke(app, [*wrong, "--out", str(tmp_path)])
    assert told.exit_code == 2, told.output
