"""The search that tries to break the theorem: it finds what there is to find, and would see a theorem that is false."""

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from synthetic import breaking
from synthetic.breaking import Case, parts, ratio, search


def test_the_search_finds_the_term_that_is_exact():
    """Noise is an equality on quadratics: the search comes near 1 and does not pass it. Kills: a noise term halved."""
    value, case = search("noise", 100, "sphere", 8, 0)
    assert 0.98 < value <= 1 + 1e-9
    assert ratio(case) == value


@pytest.mark.parametrize("law", ["sphere", "gaussian"])
def test_the_search_would_see_a_threshold_that_is_too_small(law):
    """Clipping at c = 2 called c = 5: the cost allowed is then e^10.5 times too small, and steps break it."""
    case = Case(d=1000, law=law, c=2.0, weight=0.2, one=1.0, other=-0.249)
    found = parts(case)
    assert found.change + found.descent <= found.added.clipping
    assert found.change + found.descent > found.added.clipping * np.exp(-10.5)


def test_a_step_is_what_sampling_says():
    """One case with ten thousand drawn directions and noises. Kills: a slope, a kink, a step or a noise left out."""
    case = Case(
        d=20, c=2.0, zo_eps=1.0, weight=0.3, one=0.9, other=-0.5, bend=0.8, bend_other=-0.4, across=0.6, sigma=0.3
    )
    found, generator, draws = parts(case), np.random.default_rng(0), 400_000
    u = generator.standard_normal((draws, 20))
    u *= np.sqrt(20 / np.square(u).sum(1, keepdims=True))
    λ, C = 1 / 8, 2 + 20 / 16
    a, k, share = np.array([0.9, -0.5]), np.array([0.8, -0.4]), np.array([0.3, 0.7])

    def losses(x):
        own = x[:, :1] * a + k / 2 * x[:, :1] * np.abs(x[:, :1])
        return own + 0.3 * np.square(x[:, 1:]).sum(1, keepdims=True)

    v = (losses(λ * u) - losses(-λ * u)) / (2 * λ)
    s = v.clip(-C, C) @ share + 0.3 * generator.standard_normal(draws)
    change = losses(-found.added.alpha * s[:, None] * u) @ share
    assert abs(change.mean() - found.change) < 6.5 * change.std() / np.sqrt(draws)
    assert found.descent == pytest.approx(found.added.alpha / 4 * (share @ a) ** 2)


def test_the_command_writes_its_verdict(tmp_path, monkeypatch):
    monkeypatch.setattr(breaking, "_ALONE", {"noise": breaking._ALONE["noise"]})
    app = typer.Typer()
    app.command()(breaking.main)
    told = CliRunner().invoke(app, ["--tries", "1", "--out", str(tmp_path)])
    assert told.exit_code == 0, told.output
    text = (tmp_path / "breaking.md").read_text()
    assert all(word in text for word in ("No step breaks", "1,000,000", "gaussian", "commit"))
