"""What a clip does to the exact law on quadratics: the gain, and runs beside the law that it bends.

The losses are of ``synthetic.sweep``, whose runs are ``dpzo.run``'s. Runs with and without a clip share their draws, so
that their ratio is known well; distances are in standard errors over runs, and 7 of them are a false alarm of 3e-12.
"""

import numpy as np
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from typer.testing import CliRunner

from synthetic import clipping
from synthetic.clipping import bent, departure, gain

SIGMAS = 7.0


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=30), st.integers(-60, 60), st.integers(1, 40))
def test_the_clipped_mean_has_the_slope_of_the_share_that_is_not_clipped(records, w, C):
    """Whatever the records are: d/dw mean clip_C(w - s_i) = share of |w - s_i| < C, off the kinks."""
    s, at = np.array(records, dtype=float), w + 0.25  # kinks lie on whole numbers
    slope = (np.clip(at + 0.25 - s, -C, C).mean() - np.clip(at - 0.25 - s, -C, C).mean()) / 0.5
    assert slope == pytest.approx((np.abs(at - s) < C).mean(), abs=1e-12)


@given(st.floats(0.05, 8))
@settings(max_examples=20)
def test_the_gain_of_a_normal_derivative(ratio):
    """Kills: erf without its root of 2; and it is Stein's identity: E v clip(v) = P(|v| < C) E v^2."""
    assert gain(ratio) == pytest.approx(1 - 2 * stats.norm.sf(ratio))
    moment, _ = integrate.quad(lambda v: v * np.clip(v, -ratio, ratio) * stats.norm.pdf(v), 0, 40, points=[ratio])
    assert 2 * moment == pytest.approx(gain(ratio), abs=1e-7)


def test_the_noise_that_is_felt_falls_as_the_clip_hardens():
    """C / gain(C) grows with C, from sqrt(pi / 2)."""
    ratios = np.geomspace(1e-3, 10, 200)
    felt = ratios / np.array([gain(r) for r in ratios])
    assert (np.diff(felt) > 0).all()
    assert felt[0] == pytest.approx(np.sqrt(np.pi / 2), rel=1e-6)


def test_without_a_clip_the_bent_law_is_the_exact_one():
    on = clipping.setting(400, 20, "sqrt(d)", 60, 0.3)
    free = bent(on.spread, on.a, on.alpha, on.steps, on.start, on.sigma, 1e9)
    assert free == pytest.approx(on.exact(), rel=1e-9)


def test_a_constant_gain_is_a_step_and_a_noise():
    """alpha (rho w + z) is (rho alpha) (w + z / rho): where the gain hardly changes, the two laws are one."""
    on = clipping.setting(400, 20, "sqrt(d)", 30, 0.3)
    own = 1e6 * np.ones(20)  # the records' own spread drowns the gradient
    clip = 0.5 * float(np.sqrt(on.a**2 @ own))
    got = bent(own, on.a, on.alpha, on.steps, on.start, on.sigma, clip)
    rho = gain(0.5)
    again = on._replace(alpha=rho * on.alpha, sigma=on.sigma / rho)
    assert got == pytest.approx(again.exact(), rel=1e-4)


RATIOS = (0.25, 0.5, 1.0, 4.0)


@pytest.fixture(scope="module")
def measured():
    on = clipping.setting(4000, 40, "sqrt(d)", 120, 0.3)
    marks = [30, 120]
    return on, marks, clipping.measure(on, RATIOS, marks, runs=40)


@pytest.mark.statistical
def test_a_mild_clip_leaves_the_law(measured):
    """C = 4 s clips 6 values in 100,000. Kills: a clip at C / 4, a gain that is felt where nothing is clipped."""
    on, marks, found = measured
    for number, mark in enumerate(marks):
        losses = found[:, RATIOS.index(4.0), number]
        assert abs(losses.mean() - on.exact()[mark]) < SIGMAS * losses.std(ddof=1) / np.sqrt(len(losses))
        ratio, error = departure(found, RATIOS.index(4.0), number)
        assert ratio == pytest.approx(1, abs=1e-3)
        assert abs(departure(found, RATIOS.index(1.0), number)[0] - 1) > SIGMAS * error


@pytest.mark.statistical
@pytest.mark.parametrize("ratio", [0.25, 0.5, 1.0])
def test_a_hard_clip_slows_the_run_by_its_gain(measured, ratio):
    """Upwards, and to within a tenth of what first order says. Kills: no clip, the gain at x_0 for the whole run."""
    on, marks, found = measured
    for number, mark in enumerate(marks):
        got, error = departure(found, RATIOS.index(ratio), number)
        first = on.bent(ratio)[mark] / on.exact()[mark]
        print(f"C / s {ratio} t {mark} measured {got:.3f} ± {error:.3f} first order {first:.3f}")
        assert got - 1 > SIGMAS * error
        assert got == pytest.approx(first, rel=0.1, abs=SIGMAS * error)


@pytest.mark.parametrize(
    ("losses", "told"),
    [
        ((1.5, 1.3, 1.1, 1.02, 1.009, 1.0, 1.0), "from C = 2.5 s on, where 1.2 % of"),
        ((1.5, 1.3, 1.1, 1.02, 1.009, 1.02, 1.0), "from C = 4 s on"),
        ((1.5, 1.3, 1.1, 1.02, 1.009, 1.0, 1.02), "matters at every C"),
    ],
)
def test_from_which_clip_on_it_does_not_matter(losses, told):
    """Kills: the least C that does no harm, though a larger one does; the last mark alone."""
    marks = np.stack([[*losses, 1.0], np.ones(len(losses) + 1)], axis=1)  # the clip is felt at the first mark only
    found = np.array([0.9, 1.1])[:, None, None] * marks
    assert told in clipping.when(found)


def test_the_command_writes_what_it_measured(tmp_path):
    app = typer.Typer()
    app.command()(clipping.main)
    asked = ["--n", "60", "--d", "5", "--steps", "12", "--runs", "3", "--out", str(tmp_path)]
    told = CliRunner().invoke(app, asked)
    assert told.exit_code == 0, told.output
    text = (tmp_path / "clipping.md").read_text()
    assert all(word in text for word in ("| 2.5 |", "The clip", "3 runs", "seeds: 0 to 2", "commit"))
    assert (tmp_path / "clipping.png").stat().st_size > 5000
