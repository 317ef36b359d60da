"""What every program of the experiments says to bad input: a line in the house's form, exit code 2, nothing written."""

from contextlib import nullcontext

import pytest
import typer
from typer.testing import CliRunner

from dpzo import Refusal, memory
from reproduce import figure1, figure2, quadratics, table1
from synthetic import bounds, clipping, convergence, pl, scale

PROGRAMS = (bounds, convergence, clipping, pl, scale, figure1, figure2, table1)
HUGE = "100000000"
WRONG = [
    (convergence, "--problem cubic", "'cubic'"),
    (convergence, "--rank 2", "'2'"),
    (convergence, "--direction north", "'north'"),
    (convergence, "--runs 1", "--runs of 2 or more; got 1"),
    (convergence, "--n 0", "--n of 1 or more; got 0"),
    (convergence, "--n 3 --problem pl", "even number of records"),
    (convergence, "--d 0 --problem pl", "--d of 1 or more"),
    (convergence, "--steps 0", "--steps of 1 or more"),
    (convergence, "--epsilon 0", "epsilon"),
    (convergence, "--delta 1", "delta"),
    (convergence, "--share 5", "below the stability threshold 0.388004; got 1.94002, 5 times as large"),
    (convergence, "--share 0 --problem network --n 20", "alpha to be a positive"),
    (convergence, f"--d {HUGE}", "runs that need"),
    (convergence, f"--d {HUGE} --problem pl", "records that need"),
    (convergence, f"--n {10**12} --problem network", "records that need"),
    (clipping, "--rank bad", "'bad'"),
    (clipping, "--runs 1", "--runs of 2 or more; got 1"),
    (clipping, "--n 0", "--n of 1 or more"),
    (clipping, "--d 0", "--d of 1 or more"),
    (clipping, "--steps 0", "--steps of 1 or more"),
    (clipping, "--share 3", "below the stability threshold 0.106475; got 0.319425, 3 times as large"),
    (clipping, "--share -1", "alpha to be a positive"),
    (clipping, f"--d {HUGE}", "records that need"),
    (bounds, "--runs 1", "--runs of 2 or more"),
    (bounds, "--most-steps 0", "--most_steps of 1 or more"),
    (bounds, "--seed -1", "--seed of 0 or more"),
    (pl, "--runs 1", "--runs of 2 or more"),
    (pl, "--n 0", "--n of 1 or more"),
    (scale, "--largest 0", "power of ten"),
    (scale, "--seeds 1", "seeds"),
    (scale, "--n 0", "--n of 1 or more"),
    (scale, "--steps 0", "--steps of 1 or more"),
    *(
        (program, wrong, told)
        for program in (figure1, figure2, table1)
        for wrong, told in (("--noise foo", "'foo'"), ("--size big", "'big'"))
    ),
    *(
        (program, wrong, told)
        for program in (figure1, figure2)
        for wrong, told in (
            ("--dimensions 0", "dimensions of 1 or more"),
            ("--dimensions few", "whole numbers"),
            ("--methods DP-SGD", "DP-SGD"),
            ("--seeds a", "whole numbers"),
            (f"--dimensions {HUGE}", "processes that need"),
        )
    ),
]


def invoke(program, arguments):
    app = typer.Typer()
    app.command()(program.main)
    return CliRunner().invoke(app, arguments)


@pytest.mark.parametrize(
    ("program", "wrong", "told"), WRONG, ids=lambda value: getattr(value, "__name__", str(value)).rpartition(".")[2]
)
def test_bad_input_is_refused(program, wrong, told, tmp_path):
    """Kills: a traceback, a nan, a step size beyond stability, memory that is asked for and not there."""
    got = invoke(program, [*wrong.split(), "--out", str(tmp_path)])
    assert got.exit_code == 2, (got.output, got.exception)
    *_, last = got.stderr.splitlines()  # a bar may be above
    assert last.startswith("error: expected ")
    assert told in last
    assert not any(path.stat().st_size for path in tmp_path.iterdir())


@pytest.mark.parametrize("program", [p for p in PROGRAMS if p is not scale], ids=lambda p: p.__name__)
def test_an_out_that_is_no_folder(program, tmp_path):
    (tmp_path / "file").write_text("")
    got = invoke(program, ["--out", str(tmp_path / "file" / "inner")])
    assert got.exit_code == 2, (got.output, got.exception)
    assert "a folder that can be written to" in got.stderr


def test_all_processes_at_once_must_fit(monkeypatch, tmp_path):
    """Kills: each process compared with all memory; a cell that is too large for a process."""
    monkeypatch.setattr(quadratics, "finished", lambda work, cells, steps, jobs: iter(()))
    monkeypatch.setattr(quadratics.Results, "get", lambda results, cell: None)
    size = quadratics.SIZES["laptop"]
    largest = max(map(quadratics._needed, quadratics.cells(size, "exact")))
    for jobs, there, fits in ((1, 1.0, True), (1, 0.9, False), (2, 2.0, True), (2, 1.4, False)):
        monkeypatch.setattr(memory, "free", lambda there=there: there * largest)
        with nullcontext() if fits else pytest.raises(Refusal, match="processes that need"):
            quadratics.gather(size, "exact", tmp_path, True, jobs)
