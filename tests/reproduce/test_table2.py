"""The program ``reproduce/table2.py``: from nothing to the table, stopped and continued, and every bad input."""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dpzo import accounting
from dpzo.tasks import TASKS
from reproduce import recipes, reported, table2
from reproduce.engine import Bench

Program = Callable[..., Any]
ROOT = Path(table2.__file__).parents[1]


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "table2.jsonl").read_text().splitlines()]


def files_of(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


def columns(table: str) -> list[list[str]]:
    return [[c.strip() for c in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("| ")]


def never(*arguments: object) -> None:
    raise AssertionError("nothing was to be run")


# The whole program at the size of a test, on the packaged model and data.


@pytest.fixture(scope="module")
def tiny(program: Program, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("tiny") / "out"
    result = program("--size", "tiny", "--out", out)
    assert result.exit_code == 0, result.output
    return out, result.stdout


@pytest.fixture
def mine(tiny: tuple[Path, str], tmp_path: Path) -> tuple[Path, str]:
    """A copy of the finished tiny run, to spoil."""
    return Path(shutil.copytree(tiny[0], tmp_path / "out")), tiny[1]


@pytest.mark.assets
def test_tiny_runs_every_row_and_writes_table_csv_and_picture(tiny: tuple[Path, str]) -> None:
    import matplotlib.image

    out, printed = tiny
    table = columns(printed)
    assert [row[0] for row in table[2:]] == [
        "zero-shot", "zero-shot, calibrated", "MeZO", "DPZero, eps = 6", "DPZero, eps = 2",
    ]  # fmt: skip
    assert {row[1] for row in table[2:]} == {"MR (Rotten Tomatoes)"}
    assert all(30 < float(row[2].split()[0]) < 90 for row in table[2:])
    assert [row[-1] for row in table[2:]] == ["79.0", "", "92.5 ± 0.3", "92.2 ± 0.3", "91.8 ± 0.1"]
    assert "another model, size and" in printed
    assert (out / "table2.md").read_text() == printed.removesuffix("\n")
    runs = rows_of(out)
    assert len(runs) == 5
    for run in runs:
        assert run["n"] == 300
        assert run["n_test"] == 200
        assert run["peak_memory_mib"] > 50
        assert run["provenance"]["versions"]["torch"]
        assert run["cell"]["data"].startswith("packaged ")
    private = {run["cell"]["epsilon"]: run for run in runs if run["cell"]["method"] == "dpzero"}
    for target, run in private.items():
        assert target - 0.05 < run["epsilon"] <= target
        assert (run["delta"], run["accountant"], run["streams"]) == (1e-5, "pld", "private")
        assert len(run["transcript_sha256"]) == 64
    assert private[2.0]["noise_multiplier"] > 1.5 * private[6.0]["noise_multiplier"]
    with (out / "table2.csv").open() as file:
        written = list(csv.DictReader(file))
    assert [row["method"] for row in written] == [row[0] for row in table[2:]]
    by_row = {run["cell"]["epsilon"]: run for run in runs if run["cell"]["method"] == "dpzero"}
    assert float(written[3]["accuracy"]) == pytest.approx(100 * by_row[6.0]["test_accuracy"])
    assert float(written[4]["epsilon"]) == by_row[2.0]["epsilon"]
    pixels = matplotlib.image.imread(out / "table2.png")
    assert min(pixels.shape[:2]) > 300
    assert pixels.std() > 0.05


@pytest.mark.assets
def test_a_rerun_runs_nothing_and_prints_the_same(
    mine: tuple[Path, str], program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, printed = mine
    before = (out / "table2.jsonl").read_bytes()
    monkeypatch.setattr(Bench, "run", never)
    monkeypatch.setattr(table2, "load", never)
    again = program("--size", "tiny", "--out", out)
    assert (again.exit_code, again.stdout) == (0, printed)
    assert "All 5 runs are finished" in again.stderr
    assert (out / "table2.jsonl").read_bytes() == before


@pytest.mark.assets
@pytest.mark.parametrize("how", ["deleted", "cut"])
def test_a_run_that_is_missing_is_done_again_alone(mine: tuple[Path, str], program: Program, how: str) -> None:
    out, printed = mine
    file = out / "table2.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    zero = next(i for i, line in enumerate(lines) if b'"method": "zero-shot"' in line)
    kept = lines[:zero] + lines[zero + 1 :]
    file.write_bytes(b"".join(kept) + (b"" if how == "deleted" else lines[zero][:-20]))
    again = program("--size", "tiny", "--out", out)
    assert again.exit_code == 0
    assert "4 of 5 runs are finished; 1 to go." in again.stderr
    assert ("last line was cut short" in again.stderr) == (how == "cut")
    after = file.read_bytes().splitlines(keepends=True)
    assert after[:4] == kept
    assert json.loads(after[4])["cell"]["method"] == "zero-shot"
    assert [row[:3] for row in columns(again.stdout)] == [row[:3] for row in columns(printed)]


@pytest.mark.assets
def test_no_resume_sets_the_old_runs_aside(mine: tuple[Path, str], program: Program) -> None:
    out, _ = mine
    before = (out / "table2.jsonl").read_bytes()
    again = program("--size", "tiny", "--out", out, "--no-resume", "--methods", "zero-shot")
    assert again.exit_code == 0
    assert (out / "table2.jsonl.1").read_bytes() == before
    assert [run["cell"]["method"] for run in rows_of(out)] == ["zero-shot"]


@pytest.mark.assets
def test_the_program_runs_as_a_file_from_anywhere(mine: tuple[Path, str], tmp_path: Path) -> None:
    out, printed = mine
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "reproduce" / "table2.py"), "--size", "tiny", "--out", str(out)]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert result.stdout == printed
    bad = subprocess.run(
        [*command, "--epsilon", "6,nan"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert bad.returncode == 2
    assert bad.stdout == ""
    assert bad.stderr.startswith("error: expected each epsilon to be a positive finite number; got nan.")
    assert bad.stderr.count("\n") == 1


# The same program on a small random model and files of one's own: no assets, no hub.


@pytest.fixture
def small(roberta: Path, six_tasks: Path) -> tuple[object, ...]:
    return ("--size", "tiny", "--model", roberta, "--data-dir", six_tasks, "--tasks", "sst2")


def test_an_interrupt_keeps_the_finished_runs_and_the_same_command_goes_on(
    program: Program, small: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = (*small, "--methods", "zero-shot,mezo", "--seeds", "1,2", "--out", tmp_path)
    real, calls = Bench.run, []

    def stopped(self: Bench, cell: Any, *rest: Any) -> Any:
        calls.append(cell)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, cell, *rest)

    monkeypatch.setattr(Bench, "run", stopped)
    first = program(*command)
    assert first.exit_code == 130
    assert "Stopped. Finished runs are in" in first.stderr
    assert "Traceback" not in first.stderr
    assert first.stdout == ""
    kept = (tmp_path / "table2.jsonl").read_bytes()
    assert [run["cell"]["method"] for run in rows_of(tmp_path)] == ["zero-shot"]
    monkeypatch.undo()
    second = program(*command)
    assert second.exit_code == 0
    assert "1 of 3 runs are finished; 2 to go." in second.stderr
    assert (tmp_path / "table2.jsonl").read_bytes().startswith(kept)
    assert [run["cell"]["seed"] for run in rows_of(tmp_path)] == [None, 1, 2]
    assert columns(second.stdout)[3][3] == "2"


def test_what_is_named_twice_is_run_once(program: Program, small: tuple[object, ...], tmp_path: Path) -> None:
    result = program(
        *small, "--tasks", "sst2,SST-2", "--methods", "mezo,zero-shot,mezo", "--seeds", "1,1", "--out", tmp_path
    )
    assert result.exit_code == 0
    assert [run["cell"]["method"] for run in rows_of(tmp_path)] == ["zero-shot", "mezo"]
    mezo = columns(result.stdout)[3]
    assert mezo[3] == "1"
    assert "±" not in mezo[2]
    assert table2._choose(recipes.PAPER, None, "6,2,6.0", None, None).epsilons == (6.0, 2.0)


def test_one_tasks_training_does_not_reach_the_next_task(
    program: Program, small: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipes, "OTHER", replace(recipes.OTHER, step_size=0.05))
    both = program(*small, "--tasks", "sst2,rte", "--methods", "zero-shot,mezo", "--out", tmp_path / "both")
    alone = program(*small, "--tasks", "rte", "--methods", "zero-shot", "--out", tmp_path / "alone")
    assert (both.exit_code, alone.exit_code) == (0, 0)
    losses = {(run["cell"]["task"], run["cell"]["method"]): run["test_loss"] for run in rows_of(tmp_path / "both")}
    assert losses["rte", "zero-shot"] == rows_of(tmp_path / "alone")[0]["test_loss"]
    assert losses["sst2", "mezo"] != losses["sst2", "zero-shot"]


def test_other_data_or_another_model_are_other_runs(
    program: Program, small: tuple[object, ...], six_tasks: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    data = Path(shutil.copytree(six_tasks / "sent-conv", tmp_path / "data"))
    command = ("--methods", "zero-shot", "--out", out)
    assert program(*small, *command).exit_code == 0
    assert program(*small, *command, "--data-dir", data).exit_code == 0
    assert len(rows_of(out)) == 1  # the same examples elsewhere are the same data
    with (data / "stsa.binary.train").open("a") as file:
        file.write("1 another film\n")
    assert program(*small, *command, "--data-dir", data).exit_code == 0
    assert len(rows_of(out)) == 2


def test_the_papers_size_runs_on_a_small_model_of_its_class(
    program: Program, roberta: Path, six_tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipes, "PAPER", replace(recipes.PAPER, steps=3, clips=(50.0, 200.0)))
    # RDP instead of PLD: as safe, and quick; the accountants have their own tests.
    calibrate, epsilon = accounting.calibrate, accounting.epsilon
    monkeypatch.setattr(accounting, "calibrate", lambda e, t, d, r, a: calibrate(e, t, d, r, "rdp"))
    monkeypatch.setattr(accounting, "epsilon", lambda e, d, r, a: epsilon(e, d, r, "rdp"))
    result = program(
        "--size", "paper", "--model", roberta, "--data-dir", six_tasks, "--seeds", "42,13", "--epsilon", "6",
        "--out", tmp_path,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "RoBERTa-large (355M parameters)" in result.stderr
    runs = rows_of(tmp_path)
    names = ("sst2", "sst5", "snli", "mnli", "rte", "trec")
    assert len(runs) == len(names) * (2 + 2 + 2 * 2)
    n = {"sst2": 96, "sst5": 96, "snli": 96, "mnli": 3 * 512, "rte": 96, "trec": 512 + 100}
    for run in runs:
        cell, task = run["cell"], TASKS[run["cell"]["task"]]
        recipe = {k: cell["recipe"][k] for k in ("trainable", "batch_size", "step_size", "zo_eps", "k", "delta")}
        assert recipe == {
            "trainable": ["*"], "batch_size": 64, "step_size": 1e-6, "zo_eps": 1e-3, "k": 512, "delta": 1e-5,
        }  # fmt: skip
        assert run["n"] == n[task.name]
        assert run["prompt"] == task.masked.template
        assert 0 <= run["test_accuracy"] <= 1
        assert "validation_accuracy" in run
        if cell["method"] in ("mezo", "dpzero"):
            assert run["steps"] == 3
        if cell["method"] == "dpzero":
            assert 5 < run["epsilon"] <= 6
    by_cell = {
        (r["cell"]["task"], r["cell"]["clip"], r["cell"]["seed"]) for r in runs if r["cell"]["method"] == "dpzero"
    }
    assert by_cell == {(name, clip, seed) for name in names for clip in (50.0, 200.0) for seed in (42, 13)}
    table = columns(result.stdout)
    assert [row[0] for row in table[2:]] == ["zero-shot", "zero-shot, calibrated", "MeZO", "DPZero, eps = 6"] * 6
    for row, name in zip(table[5::4], names, strict=True):
        assert (row[1], row[-1]) == (TASKS[name].title, reported.table2("DPZero, eps = 6", name))
        assert row[3] == "2"


# Bad input.


@pytest.fixture
def finished(program: Program, small: tuple[object, ...], tmp_path: Path) -> Path:
    """A results folder with a finished run, a table and a picture."""
    out = tmp_path / "out"
    assert program(*small, "--methods", "zero-shot", "--out", out).exit_code == 0
    return out


def refused(result: Any, expected: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    errors = [line for line in result.stderr.splitlines() if "error" in line.lower()]
    assert len(errors) == 1
    assert errors[0].startswith("error: expected ")
    assert expected in errors[0]
    assert "; got " in errors[0]
    assert result.stderr.splitlines()[-1] == errors[0]
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--tasks", "sst3"], "a task out of mr, sst2"),
        (["--methods", "dpzero,nope"], "methods out of zero-shot, calibrated, mezo, dpzero; got 'nope'"),
        (["--methods", ""], "methods out of"),
        (["--methods", ","], "methods out of"),
        (["--size", "huge"], "a size out of laptop, paper, tiny; got 'huge'"),
        (["--model", "no-such/model"], "a folder or a reachable hub id; got 'no-such/model'"),
        (["--model", "./no such folder"], "a folder or a reachable hub id"),
        (["--prompt", "nope"], "a prompt out of paper, sentiment; got 'nope'"),
        (["--device", "gpu"], "a device out of cpu and cuda; got 'gpu'"),
        (["--epsilon", "0"], "each epsilon to be a positive finite number; got 0.0"),
        (["--epsilon", "6,-1"], "each epsilon to be a positive finite number; got -1.0"),
        (["--epsilon", "inf"], "each epsilon to be a positive finite number; got inf"),
        (["--epsilon", "nan"], "each epsilon to be a positive finite number; got nan"),
        (["--epsilon", "abc"], "numbers separated by commas; got could not convert string to float: 'abc'"),
        (["--seeds", "abc"], "numbers separated by commas"),
        (["--seeds", "1.5"], "numbers separated by commas"),
        (["--seeds", "-1"], "seeds of 0 or more; got -1"),
        (["--seeds", str(2**64), "--methods", "mezo"], "a public seed from 0 to 2**64 - 1"),
        (["--data-dir", "no such folder"], "a folder of data; got no such folder"),
    ],
)
def test_a_bad_argument_is_one_line_and_changes_nothing(
    program: Program, small: tuple[object, ...], finished: Path, arguments: list[str], expected: str
) -> None:
    before = files_of(finished)
    for more in ((), ("--no-resume",)) if "--data-dir" in arguments or "--tasks" in arguments else ((),):
        refused(program(*small, "--methods", "mezo", "--out", finished, *more, *arguments), expected)
        assert files_of(finished) == before


def spoil(folder: Path, how: str) -> None:
    train = folder / "train.tsv"
    good = "sentence\tlabel\n" + "".join(f"a good film {i}\t{i % 2}\n" for i in range(80))
    (folder / "dev.tsv").write_text(good)
    content: dict[str, str | bytes] = {
        "empty file": "",
        "header only": "sentence\tlabel\n",
        "truncated": good + "a film that",
        "wrong columns": good.replace("sentence", "review"),
        "not UTF-8": good.encode() + b"caf\xe9\t1\n",
        "label outside": good + "odd\t7\n",
        "one label": "sentence\tlabel\n" + "a film\t1\n" * 80,
        "batch larger than the data": "".join(good.splitlines(keepends=True)[:41]),
    }
    if how in content:
        text = content[how]
        train.write_bytes(text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("empty folder", "files of SST-2: stsa.binary.train"),
        ("empty file", "rows of data; got "),
        ("header only", "rows after the line of column names"),
        ("truncated", "2 columns, as on line 1; got "),
        ("wrong columns", "columns text or sentence, and label or gold_label; got "),
        ("not UTF-8", "UTF-8 text; got "),
        ("label outside", "a label out of negative, positive, 0, 1; got "),
        ("one label", "training rows of every label of SST-2"),
        ("batch larger than the data", "a batch size from 1 to the 40 records; got 64"),
    ],
)
def test_bad_data_is_one_line_and_changes_nothing(
    program: Program, small: tuple[object, ...], finished: Path, tmp_path: Path, how: str, expected: str
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    if how != "empty folder":
        spoil(folder, how)
    before = files_of(finished)
    command = (*small, "--data-dir", folder, "--methods", "mezo")
    refused(program(*command, "--out", finished), expected)
    assert files_of(finished) == before
    if how != "batch larger than the data":
        refused(program(*command, "--out", tmp_path / "new"), expected)
        assert not (tmp_path / "new").exists()


def test_a_results_folder_that_is_a_file_is_refused(
    program: Program, small: tuple[object, ...], tmp_path: Path
) -> None:
    (tmp_path / "out").write_text("mine")
    refused(program(*small, "--methods", "mezo", "--out", tmp_path / "out"), "a folder that can be written to")
    assert (tmp_path / "out").read_text() == "mine"


def test_a_results_file_of_another_program_is_refused(
    program: Program, small: tuple[object, ...], finished: Path
) -> None:
    (finished / "table2.jsonl").write_text("task,accuracy\nsst2,0.9\n")
    before = files_of(finished)
    refused(program(*small, "--methods", "mezo", "--out", finished), "a results file of this program")
    assert files_of(finished) == before


def test_a_disk_full_at_the_table_keeps_the_runs(
    program: Program, small: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(table2, "picture", full)
    refused(program(*small, "--methods", "zero-shot", "--out", tmp_path), "room for the table in")
    assert len(rows_of(tmp_path)) == 1
    monkeypatch.undo()
    monkeypatch.setattr(Bench, "run", never)
    assert program(*small, "--methods", "zero-shot", "--out", tmp_path).exit_code == 0


def test_help_names_every_option(program: Program) -> None:
    told = program("--help").stdout
    for option in ("size", "tasks", "methods", "epsilon", "seeds", "model", "data-dir", "out", "resume", "device"):
        assert f"--{option}" in told
