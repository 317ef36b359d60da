"""The bench: a cell is exactly the library's run on the paper's recipe, and leaves no trace on the next one."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tqdm import tqdm

import dpzo
from dpzo import GaussianDirection, Refusal, Relation, Streams
from dpzo.models.encoding import Encoder
from dpzo.models.load import Loaded, load
from dpzo.models.prompted import PromptedModel
from dpzo.tasks import Example, Split, get_task, k_shot, load_examples, subsample
from reproduce import engine
from reproduce.data import Data, fingerprint
from reproduce.engine import Bench, Cell, cells
from reproduce.recipes import Recipe, recipe

SST2 = get_task("sst2")
PAPER = replace(recipe("paper", "small"), steps=3)
SILENT: Any = tqdm(disable=True)


class Setting:
    def __init__(self, folder: Path, data: Path) -> None:
        self.folder, self.data = folder, data

    def loaded(self) -> Loaded:
        return load(str(self.folder))

    def read(self, split: Split) -> Sequence[Example]:
        return load_examples(SST2, split, data_dir=self.data)

    def bench(self, r: Recipe = PAPER, loaded: Loaded | None = None) -> Bench:
        return Bench(loaded or self.loaded(), SST2, r, self.read, "cpu")


@pytest.fixture(scope="module")
def setting(roberta: Path, six_tasks: Path) -> Setting:
    return Setting(roberta, six_tasks)


@pytest.fixture
def repeatable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Streams, "secure", classmethod(lambda cls, seed: Streams.not_private(seed, secret_seed=77)))


def cell(method: str, r: Recipe = PAPER, *, seed: int | None = 42, epsilon: float | None = None) -> Cell:
    return Cell("sst2", "folder x", method, epsilon, 50.0 if epsilon else None, seed, "paper", asdict(r))


def test_the_papers_cells_are_its_grid() -> None:
    made = cells("paper", recipe("paper", None), "rte", "x", ["zero-shot", "calibrated", "mezo", "dpzero"], [6.0, 2.0])
    assert [c.method for c in made[:5]] == ["zero-shot", "calibrated", "mezo", "mezo", "mezo"]
    grid = {(c.epsilon, c.clip, c.seed) for c in made[5:]}
    assert grid == {
        (e, float(c), s) for e in (6.0, 2.0) for c in (50, 100, 150, 200, 250, 300, 400) for s in (42, 13, 21)
    }
    assert len(made) == len({repr(c) for c in made}) == 47
    assert {c.row() for c in made} == {
        "zero-shot", "zero-shot, calibrated", "MeZO", "DPZero, eps = 6", "DPZero, eps = 2",
    }  # fmt: skip


def test_a_cell_does_not_depend_on_which_others_are_asked_for() -> None:
    r = recipe("paper", None)
    alone = cells("paper", replace(r, seeds=(13,), tasks=("rte",), clips=(100.0,)), "rte", "x", ["dpzero"], [2.0])
    assert alone[0] in cells("paper", r, "rte", "x", ["mezo", "dpzero"], [6.0, 2.0])


@pytest.mark.parametrize(("method", "epsilon"), [("mezo", None), ("dpzero", 6.0)])
def test_a_run_is_the_librarys_run_with_the_papers_numbers(
    setting: Setting, repeatable: None, method: str, epsilon: float | None
) -> None:
    outcome = setting.bench().run(cell(method, epsilon=epsilon), SILENT, ("test", "validation"))
    one = setting.loaded()
    model = PromptedModel(one.model, Encoder(one.tokenizer, SST2, SST2.masked, masked=True))
    train = model.encode(k_shot(setting.read("train"), 512, 2, 42))
    common: dict[str, Any] = {"n": 96, "steps": 3, "batch_size": 64, "step_size": 1e-6, "zo_eps": 1e-3}
    if epsilon is None:
        plan = dpzo.mezo(**common, direction=GaussianDirection())
    else:
        plan = dpzo.dpzero(
            **common, direction=GaussianDirection(), clip_threshold=50.0, relation=Relation.ADD_REMOVE,
            target_epsilon=6.0, target_delta=1e-5,
        )  # fmt: skip
    steps = list(dpzo.run(plan, model, train, Streams.not_private(42, secret_seed=77)))
    assert outcome["transcript_sha256"] == dpzo.digest(steps)
    for split in ("test", "validation"):
        examples = setting.read(split)
        examples = subsample(examples, 1000) if split == "test" else k_shot(examples, 512, 2, 42)
        records = model.encode(examples)
        assert outcome[f"n_{split}"] == len(records)
        right = (model.scores(records).argmax(1).numpy() == records.label).mean()
        assert outcome[f"{split}_accuracy"] == pytest.approx(right)
        assert outcome[f"{split}_loss"] == pytest.approx(model.losses(records).mean().item(), rel=1e-6)
    assert (outcome["n"], outcome["d"], outcome["steps"]) == (96, model.params.count, 3)
    assert model.params.count == sum(p.numel() for p in one.model.parameters())
    assert outcome["streams"] == "NOT PRIVATE"
    assert outcome["prompt"] == "{text} It was{mask}."
    if epsilon is None:
        assert (outcome["epsilon"], outcome["noise_multiplier"], outcome["relation"]) == (None, None, None)
    else:
        assert 5.9 < outcome["epsilon"] <= 6.0
        assert outcome["epsilon"] == plan.epsilon(1e-5)
        assert (outcome["delta"], outcome["accountant"]) == (1e-5, "pld")
        assert outcome["noise_multiplier"] == plan.mechanism.noise_multiplier
        assert "add" in outcome["relation"]


def test_real_runs_draw_from_the_operating_system(setting: Setting) -> None:
    bench = setting.bench()
    runs = [bench.run(cell("mezo"), SILENT) for _ in range(2)]
    assert [run["streams"] for run in runs] == ["private", "private"]
    assert runs[0]["transcript_sha256"] != runs[1]["transcript_sha256"]


def test_a_run_starts_from_the_models_weights_and_leaves_them(setting: Setting, repeatable: None) -> None:
    one = setting.loaded()
    before = {name: t.clone() for name, t in one.model.state_dict().items()}
    wild = replace(PAPER, step_size=0.05)
    bench = setting.bench(wild, one)
    first = bench.run(cell("zero-shot", seed=None), SILENT)
    trained = bench.run(cell("mezo"), SILENT)
    assert trained["test_loss"] != first["test_loss"]
    assert all(torch.equal(t, before[name]) for name, t in one.model.state_dict().items())
    # The next bench on this model, another task's, begins where this one did.
    again = setting.bench(wild, one)
    assert again.run(cell("zero-shot", seed=None), SILENT)["test_loss"] == first["test_loss"]
    assert again.run(cell("mezo"), SILENT)["transcript_sha256"] == trained["transcript_sha256"]


def test_a_run_that_is_stopped_leaves_the_weights_too(setting: Setting) -> None:
    class Stopping:
        def update(self) -> None:
            raise KeyboardInterrupt

    one = setting.loaded()
    before = {name: t.clone() for name, t in one.model.state_dict().items()}
    bar: Any = Stopping()
    with pytest.raises(KeyboardInterrupt):
        setting.bench(replace(PAPER, step_size=0.05), one).run(cell("mezo"), bar)
    assert all(torch.equal(t, before[name]) for name, t in one.model.state_dict().items())


def test_averaging_reports_the_mean_of_the_last_half(setting: Setting, repeatable: None) -> None:
    r = replace(PAPER, steps=6, step_size=0.05, average=True)
    outcome = setting.bench(r).run(cell("mezo", r), SILENT)
    one = setting.loaded()
    model = PromptedModel(one.model, Encoder(one.tokenizer, SST2, SST2.masked, masked=True))
    train, test = model.encode(k_shot(setting.read("train"), 512, 2, 42)), model.encode(setting.read("test"))
    plan = dpzo.mezo(n=96, steps=6, batch_size=64, step_size=0.05, zo_eps=1e-3)
    iterates = []
    for _ in dpzo.run(plan, model, train, Streams.not_private(42, secret_seed=77)):
        iterates.append({name: t.double().numpy().copy() for name, t in model.params.items()})
    last = model.losses(test).mean().item()
    mean = {name: torch.from_numpy(np.mean([i[name] for i in iterates[3:]], 0)).float() for name in model.params}
    model.params.restore(mean)
    assert outcome["test_loss"] == pytest.approx(model.losses(test).mean().item(), rel=1e-5)
    assert abs(outcome["test_loss"] - last) > 1e-3


def test_calibrated_zero_shot_subtracts_the_mean_score_of_the_training_texts(setting: Setting) -> None:
    bench = setting.bench()
    outcome = bench.run(cell("calibrated", seed=None), SILENT)
    train, test = bench.records("train", None), bench.records("test", None)
    scores = bench.model.scores(test).double() - bench.model.scores(train).mean(0)
    right = (scores.argmax(1).numpy() == test.label).mean()
    assert outcome["test_accuracy"] == pytest.approx(right)
    plain = bench.run(cell("zero-shot", seed=None), SILENT)
    assert plain["test_loss"] != outcome["test_loss"]
    assert "epsilon" not in plain


def test_each_seed_has_its_own_examples_and_all_have_one_test_set(setting: Setting) -> None:
    r = replace(PAPER, k=20)
    bench = setting.bench(r)
    for seed in (42, 13, 42):
        for split in ("train", "validation"):
            examples = k_shot(setting.read(split), 20, 2, seed)
            records = bench.records(split, seed)  # type: ignore[arg-type]
            fresh = bench.model.encode(examples)
            assert all(np.array_equal(a, b) for a, b in zip(records.ids, fresh.ids, strict=True))
            assert np.array_equal(records.label, fresh.label)
        assert len(bench.records("test", seed)) == 40
    assert bench._examples("train", 42) != bench._examples("train", 13)
    fixed = setting.bench(replace(r, examples_seed=5))
    assert fixed._examples("train", 42) == fixed._examples("train", 13) == k_shot(setting.read("train"), 20, 2, 5)
    assert setting.bench(replace(r, at_most=7))._examples("test", 42) == subsample(setting.read("test"), 7)


@pytest.mark.parametrize(
    ("change", "method", "message"),
    [
        ({"batch_size": 97}, "mezo", "a batch size from 1 to the 96 records; got 97"),
        ({"batch_size": 0}, "mezo", "a batch size from 1 to the 96 records; got 0"),
        ({"batch_size": 97}, "dpzero", "a batch size from 1 to the 96 records; got 97"),
        ({"delta": 1 / 96}, "dpzero", "delta"),
        ({"delta": 0.0}, "dpzero", "delta"),
        ({"delta": float("nan")}, "dpzero", "delta"),
        ({"zo_eps": 0.0}, "mezo", "zo_eps to be a positive finite number"),
        ({"step_size": float("inf")}, "mezo", "step_size to be a positive finite number"),
        ({"steps": 0}, "mezo", "steps of a stage to be a whole number, at least 1"),
        ({"k": 0}, "mezo", "k >= 1"),
        ({"at_most": 0}, "zero-shot", "at_most >= 1"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(
    setting: Setting, change: dict[str, Any], method: str, message: str
) -> None:
    r = replace(PAPER, **change)
    with pytest.raises(Refusal, match=message):
        setting.bench(r).run(cell(method, r, epsilon=6.0 if method == "dpzero" else None), SILENT)


@pytest.mark.parametrize("clip", [0.0, -1.0, float("inf"), float("nan")])
def test_a_clip_that_cannot_be_is_refused(setting: Setting, clip: float) -> None:
    with pytest.raises(Refusal, match="clip_threshold to be a positive finite number"):
        setting.bench().run(replace(cell("dpzero", epsilon=6.0), clip=clip), SILENT)


def test_a_fingerprint_is_of_every_text_and_label() -> None:
    one, two = Example(("a",), 0), Example(("b",), 1)
    base = fingerprint([[one, two], [one]])
    others = [
        [[one], [one]],
        [[two, one], [one]],
        [[one, Example(("b",), 0)], [one]],
        [[one, Example(("b ",), 1)], [one]],
    ]
    assert len(base) == 12
    assert base not in map(fingerprint, others)
    assert base == fingerprint([(one, two), (one,)])
    joined = hashlib.sha256(b"".join(repr((e.texts, e.label)).encode() for e in (one, two, one))).hexdigest()
    assert base == joined[:12]


def test_data_is_read_once_and_says_where_from(six_tasks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Data(SST2, six_tasks, None)
    assert data.told.startswith("folder ")
    monkeypatch.setattr("reproduce.data.load_examples", None)
    assert len(data.read("train")) == 96
    assert data.read("train") is data.read("train")


def test_methods_are_those_that_the_rows_know() -> None:
    assert [cell(m, epsilon=6.0).row() for m in engine.METHODS] == [
        "zero-shot", "zero-shot, calibrated", "MeZO", "DPZero, eps = 6",
    ]  # fmt: skip
