"""From runs to a table: the interval by hand, the best clip by the validation set, and nothing made up."""

import csv
import io
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from reproduce.engine import Cell, cells
from reproduce.present import Entry, entries, markdown, picture, table_csv
from reproduce.recipes import recipe
from reproduce.reported import table2 as paper
from reproduce.results import Results

RECIPE = replace(recipe("paper", "small"), clips=(50.0, 100.0), seeds=(42, 13, 21))
TITLES = {"sst2": "SST-2", "rte": "RTE"}


def run(accuracy: float, **more: Any) -> dict[str, Any]:
    return {"test_accuracy": accuracy, **more}


def entry(*accuracies: float, **more: Any) -> Entry:
    return Entry("sst2", "MeZO", tuple(run(a, **more) for a in accuracies), None)


def test_the_interval_is_students_t_over_the_runs() -> None:
    three = entry(0.90, 0.92, 0.97)
    # Mean 93, deviations -3, -1, 4: s = sqrt(26 / 2) = 3.60555; t(0.975; 2) = 4.30265; half = t s / sqrt(3).
    assert three.accuracies.mean() == pytest.approx(93.0)
    assert three.half == pytest.approx(4.30265 * 3.60555 / 1.7320508, rel=1e-5)
    two = entry(0.5, 0.6)  # s = 7.07107, t(0.975; 1) = 12.7062
    assert two.half == pytest.approx(12.7062 * 7.0710678 / 1.4142136, rel=1e-5)
    assert entry(0.5, 0.5).half == 0


def test_a_single_run_has_no_interval() -> None:
    one = entry(0.612)
    assert one.half is None
    line = markdown([one], TITLES, "small", paper).splitlines()[2]
    assert "| 61.2 |" in line
    assert "±" not in line.split("|")[3]


def test_a_mean_is_over_the_runs_that_have_the_field() -> None:
    mixed = Entry("sst2", "MeZO", (run(0.5, epsilon=1.0), run(0.5, epsilon=None), run(0.5, epsilon=2.0)), None)
    assert mixed.mean("epsilon") == 1.5
    assert mixed.mean("nothing") is None


@pytest.fixture
def made(tmp_path: Path) -> tuple[list[Cell], Results]:
    everything = cells("paper", RECIPE, "sst2", "folder x", ["zero-shot", "mezo", "dpzero"], [6.0, 2.0])
    return everything, Results(tmp_path / "runs.jsonl")


def fill(everything: list[Cell], results: Results, test: dict[float, float], validation: dict[float, float]) -> None:
    for cell in everything:
        if cell.epsilon == 6.0:
            assert cell.clip is not None
            more = {"validation_accuracy": validation[cell.clip], "steps": 3, "epsilon": 5.99, "noise_multiplier": 2.5}
            results.add(asdict(cell), run(test[cell.clip] + 0.01 * (cell.seed == 13), **more))


def test_the_clip_is_chosen_on_the_validation_set_never_on_the_test_set(made: tuple[list[Cell], Results]) -> None:
    everything, results = made
    fill(everything, results, test={50.0: 0.99, 100.0: 0.60}, validation={50.0: 0.70, 100.0: 0.71})
    best = next(e for e in entries(everything, results) if e.row == "DPZero, eps = 6")
    assert best.clip == 100.0
    assert sorted(best.accuracies) == pytest.approx([60, 60, 61])


def test_a_clip_with_all_its_seeds_goes_before_one_that_is_half_done(made: tuple[list[Cell], Results]) -> None:
    everything, results = made
    fill(
        [c for c in everything if c.clip == 50.0 or c.seed == 42],
        results,
        test={50.0: 0.5, 100.0: 0.6},
        validation={50.0: 0.7, 100.0: 0.9},
    )
    best = next(e for e in entries(everything, results) if e.row == "DPZero, eps = 6")
    assert (best.clip, len(best.runs)) == (50.0, 3)


def test_rows_stand_in_order_and_what_was_not_run_says_so(made: tuple[list[Cell], Results]) -> None:
    everything, results = made
    fill(everything, results, test={50.0: 0.8, 100.0: 0.6}, validation={50.0: 0.9, 100.0: 0.1})
    table = markdown(entries(everything, results), TITLES, "small", paper)
    rows = [[part.strip() for part in line.strip("|").split("|")] for line in table.splitlines()]
    assert [row[0] for row in rows[2:]] == ["zero-shot", "MeZO", "DPZero, eps = 6", "DPZero, eps = 2"]
    assert {len(row) for row in rows} == {9}
    assert [row[2] for row in rows[2:]] == ["not run here", "not run here", "80.3 ± 1.4", "not run here"]
    assert [row[3] for row in rows[2:]] == ["", "", "3", ""]
    assert rows[4][4:6] == ["5.99", "2.500"]
    assert [row[8] for row in rows[2:]] == ["79.0", "92.5 ± 0.3", "92.2 ± 0.3", "91.8 ± 0.1"]


def test_the_csv_says_the_same_in_numbers(made: tuple[list[Cell], Results]) -> None:
    everything, results = made
    fill(everything, results, test={50.0: 0.8, 100.0: 0.6}, validation={50.0: 0.9, 100.0: 0.1})
    rows = list(csv.DictReader(io.StringIO(table_csv(entries(everything, results), paper))))
    assert [row["method"] for row in rows] == ["zero-shot", "MeZO", "DPZero, eps = 6", "DPZero, eps = 2"]
    six = rows[2]
    assert (six["task"], six["runs"], six["clip"], six["paper"]) == ("sst2", "3", "50.0", "92.2 ± 0.3")
    assert float(six["accuracy"]) == pytest.approx(80.3333333)
    assert float(six["half_width_95"]) == pytest.approx(4.30265 / 3, rel=1e-5)  # s = 1/sqrt(3)
    assert (rows[0]["runs"], rows[0]["accuracy"]) == ("0", "")


def test_tasks_are_never_mixed(tmp_path: Path) -> None:
    results = Results(tmp_path / "runs.jsonl")
    two = [cells("paper", RECIPE, task, "folder x", ["zero-shot"], []) for task in TITLES]
    for (cell,), accuracy in zip(two, (0.7, 0.4), strict=True):
        results.add(asdict(cell), run(accuracy))
    made = entries([*two[0], *two[1]], results)
    assert [(e.task, e.accuracies.tolist()) for e in made] == [("sst2", [70.0]), ("rte", [40.0])]


def test_the_picture_is_drawn_of_what_was_run(tmp_path: Path) -> None:
    import matplotlib.image

    shown = [entry(0.9, 0.92, 0.97), Entry("rte", "zero-shot", (run(0.5),), None), Entry("rte", "MeZO", (), None)]
    picture(shown, TITLES, "small", str(tmp_path / "p.png"))
    pixels = matplotlib.image.imread(tmp_path / "p.png")
    assert min(pixels.shape[:2]) > 300
    assert pixels.std() > 0.05
