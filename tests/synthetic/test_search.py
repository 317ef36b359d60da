"""The search of Figures 1 and 2: no winner lies on an edge but where the paper's grid ends; one process or two."""

import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from dpzo import Refusal
from reproduce import quadratics
from reproduce.quadratics import ALL, PAPER, Grid, Size, cells, gather, measure, winner
from reproduce.table1 import against, grows, pl_rate
from synthetic.sweep import Combination, Outcome

ROOT = Path(quadratics.__file__).resolve().parents[1]
SMALL = Size(60, (3, 4), (0, 1), dict.fromkeys(quadratics.METHODS, Grid((0.1,), (3.0,), (10,))))


def test_neighbours_along_each_axis():
    assert set(PAPER.around(Combination(1.0, 0.3, 80))) == {
        *((0.3, 0.3, 80), (1.0, 0.1, 80), (1.0, 1.0, 80), (1.0, 0.3, 40), (1.0, 0.3, 160)),
    }


def bowl(best):
    """In place of ``run``: a bowl whose bottom is ``best``, in steps along the axes of the paper's grid."""

    def run(problem, method, runs, seed, advance):
        def height(one):
            axes = zip((PAPER.alphas, PAPER.clips, PAPER.lengths), one, best, strict=True)
            return sum(abs(values.index(a) - values.index(b)) for values, a, b in axes)

        heights = np.array([float(height(runs[row])) for row in range(len(runs))])
        return Outcome(heights, heights + 9, heights, heights)

    return run


@pytest.mark.parametrize("best", [(0.003, 300.0, 5120), (0.1, 1.0, 20), (1.0, 0.1, 10)])
def test_the_search_walks_to_the_bottom_and_runs_its_neighbours(best, monkeypatch):
    """Kills: a grid that is not extended, a winner whose neighbours were not run, a search along one axis alone."""
    monkeypatch.setattr(quadratics, "run", bowl(best))
    (cell, *_) = cells(SMALL, "lemma")
    more = []
    told = measure(cell, lambda made, further=0: more.append(further))
    for name in quadratics.MEASURES:
        assert Combination(told[name]["alpha"], told[name]["clip"], told[name]["steps"]) == best
    assert told["test_gradient"]["values"] == [9.0, 9.0]
    assert told["cells"] > len(PAPER.around(Combination(*best)))
    assert sum(more) > 0


@pytest.mark.parametrize("rank", ["d", "log(d)"])
def test_a_combination_is_given_up_only_if_it_loses(rank):
    """DP-GD's whole grid from a start that is far off. Kills: a bound that is too high, a seed that counts twice."""
    whole = {name: list(values) for name, values in asdict(PAPER).items()}
    cell = next(c for c in cells(SMALL, "lemma") if c["method"] == "DP-GD" and c["d"] == 4 and c["rank"] == rank)
    everything = measure(cell | {"grid": whole}, lambda *_: None)
    started = {"alphas": [1e-5], "clips": [300.0], "lengths": [10]}
    proved = measure(cell | {"grid": started, "then": ALL}, lambda *_: None)
    assert proved["cells"] == everything["cells"] == 880
    assert proved["run_on_all_seeds"] < 440
    for name in quadratics.MEASURES:
        assert proved[name] == {**everything[name], "values": pytest.approx(everything[name]["values"], rel=1e-4)}


def test_a_test_measure_is_told_of_what_is_best_in_training():
    told = {
        Combination(0.1, 1.0, 10): {"train_loss": [1.0, 3.0], "test_loss": [0.0, 0.0]},
        Combination(0.3, 1.0, 10): {"train_loss": [1.0, 1.0], "test_loss": [9.0, 9.0]},
    }
    assert winner(told, "test_loss") == winner(told, "train_loss") == (0.3, 1.0, 10)


def test_two_processes_tell_what_one_tells(tmp_path):
    """Kills: outcomes in the order in which they were finished, not the cells'."""
    size = replace(SMALL, methods=("DPZero",))
    alone = gather(size, "exact", tmp_path / "one", True, jobs=1)
    both = gather(size, "exact", tmp_path / "two", True, jobs=2)
    assert len(alone) == len(both) == 2 * 3
    for one, other in zip(alone, both, strict=True):
        first, second = one.pop("outcome"), other["outcome"]
        assert one == {name: value for name, value in other.items() if name != "outcome"}
        for name in quadratics.MEASURES:
            assert first[name]["values"] == pytest.approx(second[name]["values"], rel=1e-4)
    assert gather(size, "exact", tmp_path / "two", True) == both  # nothing is run again


@pytest.mark.skipif(not Path("/proc").exists(), reason="asks the kernel which processes run")
def test_no_process_outlives_one_that_was_killed(tmp_path):
    """Kills: workers that wait for ever for work from a parent that is gone."""
    made = tmp_path / "made"
    script = tmp_path / "main.py"
    script.write_text(
        "import sys, os, time, pathlib\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "from reproduce.workers import finished\n"
        "def work(cell, advance):\n"
        f"    with open({str(made)!r}, 'a') as file: file.write(f'{{os.getpid()}}\\n')\n"
        "    return cell\n"
        "if __name__ == '__main__':\n"
        "    for _ in finished(work, [{'a': 1}, {'a': 2}], 2, jobs=2): time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: made.exists() and made.read_text().endswith("\n"), 120)
        workers = {int(pid) for pid in made.read_text().split()}
    finally:
        parent.kill()
        parent.wait()
    wait_for(lambda: not any(alive(pid) for pid in workers), 60)


def wait_for(happened, seconds):
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.1)


def alive(pid):
    """Whether the process runs (one that ended and waits to be collected does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_methods_can_be_chosen():
    few = quadratics.chosen("laptop", "20,200", methods="DP-GD, DPZero")
    assert few.methods == ("DPZero", "DP-GD")
    assert {(cell["method"], cell["d"]) for cell in cells(few, "exact")} == {
        (method, d) for method in few.methods for d in (20, 200)
    }
    with pytest.raises(Refusal, match="DP-SGD"):
        quadratics.chosen("laptop", methods="DP-SGD,DPZero")


def test_verdicts_can_fail():
    """Kills: a bound that a run which stays at its start would satisfy, counted as one that holds."""
    levels, start, high = np.array([10.0, 10.0]), np.array([5.0, 50.0]), np.array([50.0, 50.0])
    assert against(levels, np.array([[1.0], [2.0]]), high) == "5 times below"
    assert against(levels, np.array([[5.0], [2.0]]), start) == "5 times below at the 1 of 2 d where it says something"
    assert against(levels, np.array([[1.0], [40.0]]), high) == "EXCEEDED, 4.0 times"
    assert (
        against(levels, np.array([[1.0], [2.0]]), levels / 2) == "says nothing: at least 2 times the level at the start"
    )
    assert grows(1.0, 1.5, 0.6) == "no faster"
    assert grows(1.0, 1.5, 0.4) == "FASTER, by 0.50"


def test_the_rate_under_pl():
    from dpzo.theory.rates import Problem

    p = Problem(n=10, d=8, r=3.0, L=2.0, l=1.0, gap=1.0, epsilon=1.0, delta=1e-6, mu=0.5)
    assert pl_rate("DPZero", p) == pl_rate("DP-GD", p) == 2 * 4 * 3 / 0.5
    assert pl_rate("DPGD-0th", p) == 64 * pl_rate("DPZero", p)
