"""The two studies of the stagewise methods at their tiny size."""

from dataclasses import replace

import pytest
import torch

from dpzo import Pruning, Refusal
from dpzo.tasks import TASKS
from reproduce import dpzopo_ablation, dpzopo_figure_roberta, reported
from reproduce.prefix import Prefix
from reproduce.results import Results
from reproduce.stagewise import SETTINGS, Method, Study, grid, named, plan_of, setting_of

pytestmark = pytest.mark.assets
TINY = SETTINGS["tiny"]
ZOPO = Method("m", "dp-zopo", 0.1, stages=3, keep=(0.02,), pruning=Pruning(score="magnitude"))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return Study(TINY, "mr", Results(tmp_path_factory.mktemp("study") / "runs.jsonl"), None, None, "cpu")


@pytest.fixture(autouse=True)
def untouched(study):
    """No run reaches the next one."""
    start = study.bench.model.params.snapshot()
    yield
    assert all(torch.equal(t, start[name]) for name, t in study.bench.model.params.items())


def test_the_programs_write_their_tables_and_go_on(tmp_path, capsys):
    for program, name in ((dpzopo_figure_roberta, "dpzopo_figure"), (dpzopo_ablation, "dpzopo_ablation")):
        options = {"size": "tiny", "task": "mr", "data_dir": None, "assets": None, "out": tmp_path, "device": "cpu"}
        if program is dpzopo_ablation:
            options["parts"] = "stages,strategy"
        program.main(**options)
        lines = (tmp_path / f"{name}.jsonl").read_text()
        table = (tmp_path / f"{name}.md").read_text()
        program.main(**options)
        assert (tmp_path / f"{name}.jsonl").read_text() == lines
        assert (tmp_path / f"{name}.md").read_text() == table
    assert (tmp_path / "dpzopo_figure.png").stat().st_size > 10_000
    assert "synflow in one pass, 1 % of each tensor's" in capsys.readouterr().out


def test_every_private_run_has_the_same_steps_and_the_epsilon_asked_for():
    methods = [m for m in dpzopo_figure_roberta.ROWS if m.private and not m.first_order]
    methods += [m for part in dpzopo_ablation.PARTS.values() for m in part]
    for method in methods:
        plan = plan_of(replace(method, step_size=0.1), SETTINGS["laptop"], 1024, 4.0)
        assert plan.steps == SETTINGS["laptop"].steps
        assert 3.99 < plan.epsilon(1e-5) <= 4.0
        assert plan.sampler.divisor(1024) == SETTINGS["laptop"].batch_size


def test_every_mask_is_held_against_a_random_one_of_its_sizes():
    """Kills: growing and shrinking masks against one that has their last size all along."""
    for method in (m for part in dpzopo_ablation.PARTS.values() for m in part):
        other = dpzopo_ablation.against(method)
        if method.pruning is None:
            assert other is None or other.pruning is None
        elif other is None:
            assert (method.pruning, len(method.keep)) == (Pruning(score="random"), 1)
        else:
            sizes = method.keep if method.pruning.score != "random" else method.keep[-1:]
            assert (other.pruning.score, other.keep, other.stages) == ("random", sizes, 3)
            assert other.pruning.strategy == ("incremental" if len(sizes) > 1 else "static")


def test_the_chosen_step_size_has_the_least_validation_loss(study):
    """Kills: a winner at an end of its grid with nothing tried beyond it."""
    said = []
    best = study.tuned(Method("m", "dpzero"), (1e-6, 1e-2), (1,), said.append)
    sizes = sorted(float(line.split("step size ")[1].split(",")[0]) for line in said)
    losses = {
        size: study.run(Method("m", "dpzero", size), study.setting.tuned_at, 1, "validation")["validation_loss"]
        for size in sizes
    }
    assert best.step_size == min(losses, key=losses.get)
    assert len(sizes) in (3, 4, 5)
    assert len(sizes) == 5 or best.step_size in sizes[1:-1]


def test_with_several_seeds_the_mean_loss_counts(study):
    said, method, means = [], Method("m", "dpzero"), {}
    best = study.tuned(method, (1e-3, 1e-2, 1e-1), (1, 2, 3), said.append)
    for line in said:
        size, told = (float(line.split(before)[1].split(",")[0]) for before in ("step size ", "validation loss "))
        runs = [study.run(replace(method, step_size=size), 4.0, seed, "validation") for seed in (1, 2, 3)]
        assert len({run["validation_loss"] for run in runs}) == 3
        means[size] = sum(run["validation_loss"] for run in runs) / 3
        assert told == pytest.approx(means[size], abs=1e-4)
    assert best.step_size == min(means, key=means.get)


def test_a_masked_run_is_offered_longer_steps():
    assert grid(Method("m", "dpzero"))[0] == pytest.approx(grid(ZOPO)[0] * 0.02**0.5, rel=0.05)


def test_a_remembered_mask_is_the_mask(study):
    plan = plan_of(ZOPO, TINY, 120, 4.0)
    for keep in (0.02, 0.5):
        mine, fresh = (p.mask(study.bench.model, keep) for p in (plan.pruning, ZOPO.pruning))
        assert all(torch.equal(mine.indices(name), fresh.indices(name)) for name in study.bench.model.params)


@pytest.mark.parametrize("name", ["FT", "FT-prefix"])
def test_at_size_paper_the_first_order_rows_are_of_the_whole_model(tmp_path, name):
    assert (SETTINGS["paper"].trainable, SETTINGS["paper"].prefix.last_only) == (("*",), False)
    whole = Study(
        replace(TINY, trainable=("*",), prefix=Prefix(), first_order_steps=2),
        "mr",
        Results(tmp_path / "runs.jsonl"),
        None,
        None,
        "cpu",
    )
    (method,) = (replace(m, step_size=1e-3) for m in dpzopo_figure_roberta.ROWS if m.name == name)
    row = whole.run(method, 4.0, 42, "test")
    network = whole.bench.loaded.model
    both = 2 * 10 * network.config.hidden_size * network.config.num_hidden_layers
    assert row["d"] == (both if method.of_prefix else sum(t.numel() for t in network.parameters()))
    assert 3.99 < row["epsilon"] <= 4.0
    assert row["test_loss"] != whole.run(Method("zero-shot", "zero-shot"), None, None, "test")["test_loss"]
    assert whole.run(method, 4.0, 42, "test") is row
    for bench in (whole.bench, whole.bench_of(whole.setting.prefix)):
        assert all(torch.equal(t, bench.start[name]) for name, t in bench.model.params.items())


def test_a_task_has_its_own_prompt_files_and_command(tmp_path):
    """Kills: MR's prompt, or MR's results, for another task."""
    lines = [f"{label}:other What is number {i} ?\n" for label in TASKS["trec"].labels for i in range(8)]
    for name in ("raw_TREC.train", "raw_TREC.test"):
        (tmp_path / name).write_text("".join(lines))
    trec = Study(SETTINGS["laptop"], "trec", Results(tmp_path / "runs.jsonl"), tmp_path, None, "cpu")
    assert trec.told["prompt"] is None
    assert trec.options == " --task trec --data-dir FOLDER"
    assert Study(SETTINGS["laptop"], "mr", Results(tmp_path / "runs.jsonl"), None, None, "cpu").options == ""
    assert (named("study", "mr"), named("study", "trec")) == ("study", "study_trec")


def test_the_rows_stand_as_in_the_figure():
    names = [method.name for method in dpzopo_figure_roberta.ROWS]
    assert names == [*reported.STAGEWISE, "DP-ZOPO, random mask"]


def test_the_figures_numbers_are_the_abstracts():
    """+4.5 on SST-5 and +5.5 on MNLI over DPZero at epsilon = 4, as its abstract says."""
    for task, gain in (("sst5", 4.5), ("mnli", 5.5)):
        zopo, dpzero = (reported.stagewise(row, task, 4.0) for row in ("DP-ZOPO", "DPZero"))
        assert zopo - dpzero == pytest.approx(gain, abs=0.01)
    assert reported.stagewise("DP-ZOPO", "rte", 4.0) is None
    assert reported.stagewise("zero-shot", "sst2", None) == 79.0


def test_a_size_that_is_not_there_is_refused():
    with pytest.raises(Refusal, match="laptop"):
        setting_of("huge")
