"""Exponents of d with their verdict, and the command that tells them: it keeps what it ran."""

import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from synthetic import growth, scale
from synthetic.scale import Row

DECADES = (10, 100, 1000, 10_000)


def drawn(exponent, spread, seeds=8, seed=0):
    generator = np.random.default_rng(seed)
    return {d: list(0.01 * d**exponent * generator.lognormal(0, spread, seeds)) for d in DECADES}


def test_the_exponent_of_exact_powers():
    mean, half = growth.exponent(DECADES, [[d**0.3] * 4 for d in DECADES])
    assert mean == pytest.approx(0.3)
    assert half == pytest.approx(0)


@pytest.mark.statistical
def test_the_interval_covers_as_often_as_it_says():
    """Kills: a normal quantile, a standard error that is not of the mean. 2000 trials: 0.95 within 0.03 is 6 sigmas."""
    covers = []
    for seed in range(2000):
        squares = list(drawn(0.3, 0.1, seeds=5, seed=seed).values())
        mean, half = growth.exponent(DECADES, squares)
        covers.append(abs(mean - 0.3) < half)
    assert 0.93 < np.mean(covers) < 0.998


@pytest.mark.parametrize(("off", "verdict"), [(0.0, "as the law says"), (0.15, "OFF by +0.1")])
def test_a_growth_that_is_not_the_laws_is_told(off, verdict):
    rows = [Row("DPZero", "log(d)", d, 0.1 * d**0.05, 0.1, 5) for d in DECADES]
    found = {("DPZero", "log(d)", d): squares for d, squares in drawn(0.1 + off, 0.05).items()}
    text = growth.text(rows, found, 10_000, 2.0, 1e-6)
    lines = [line for line in text.splitlines() if line.startswith("| DPZero | log(d) | 10^1 to")]
    assert len(lines) == 1
    assert verdict in lines[0]


def test_the_norms_interval_is_positive_and_around_it():
    middle, low, high = growth.norm([0.01, 0.04, 0.0001])
    assert middle == pytest.approx(np.sqrt(0.0501 / 3))
    assert 0 < low < middle < high


def test_the_command_writes_what_it_found_and_goes_on(tmp_path, monkeypatch):
    """A run that stops at its third simulation goes on with it. Kills: rows kept at the end only."""
    app = typer.Typer()
    app.command()(scale.main)
    asked = ["--largest", "3", "--simulated", "2", "--seeds", "2", "--n", "50", "--steps", "20", "--out", str(tmp_path)]
    with monkeypatch.context() as broken:
        once = scale.simulate

        def stopped(*arguments):
            if len((tmp_path / "scale.jsonl").read_text().splitlines()) == 2:
                raise KeyboardInterrupt
            return once(*arguments)

        broken.setattr(scale, "simulate", stopped)
        assert CliRunner().invoke(app, asked).exit_code != 0
    first = (tmp_path / "scale.jsonl").read_text()
    told = CliRunner().invoke(app, asked)
    assert told.exit_code == 0, told.output
    text = (tmp_path / "scale.jsonl").read_text()
    assert text.startswith(first)
    assert [json.loads(line)["cell"]["d"] for line in text.splitlines()] == [10, 10, 100, 100]
    page = (tmp_path / "scale.md").read_text()
    assert all(word in page for word in ("exact law", "verdict", "10^1 to 10^2", "seeds: 1000 k", "commit"))
    assert (tmp_path / "scale.png").stat().st_size > 5000
    assert len((tmp_path / "scale.csv").read_text().splitlines()) == 1 + 27


@pytest.mark.parametrize("wrong", [["--largest", "0"], ["--seeds", "1"]])
def test_refusals(wrong, tmp_path):
    app = typer.Typer()
    app.command()(scale.main)
    told = CliRunner().invoke(app, [*wrong, "--out", str(tmp_path)])
    assert told.exit_code == 2
    assert not list(tmp_path.iterdir())
