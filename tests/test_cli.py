"""The command line, run as its users run it."""

import logging
import math
import sys
from itertools import islice, pairwise

import pytest
import torch
from dp_accounting import GaussianDpEvent, LaplaceDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent

from dpzo import Ledger, Relation, Streams, dpzero, run
from dpzo.accounting import epsilon
from dpzo.cli import app, main
from dpzo.ledger import read
from dpzo.models.quadratic import Quadratic
from dpzo.printing import rounded_up


@pytest.fixture
def dpzo(monkeypatch, capsys):
    """Run ``dpzo`` with arguments; returns its exit code and what it wrote to stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["dpzo", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        written = capsys.readouterr()
        return ended.value.code, written.out, written.err

    return run


PLAN = ("plan", "--n", "1024", "--steps", "1000", "--epsilon", "2", "--delta", "1e-5")
COST = ("epsilon", "--n", "1000", "--steps", "100", "--noise-multiplier", "2", "--delta", "1e-5")


def cells(out):
    """The rows of the table in ``out``, each a list of its cells."""
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]


def refused(outcome):
    """Exit code 2 and one line."""
    code, out, err = outcome
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def test_plan_prints_every_mechanism_and_accountant_and_the_papers_noise(dpzo):
    code, out, _ = dpzo(*PLAN, "--batch-size", "64")
    assert code == 0
    rows = {tuple(row[1:4]): row for row in cells(out)}
    assert [*rows] == [
        ("Gaussian", "Poisson, 64", "PLD"),
        ("Gaussian", "Poisson, 64", "RDP"),
        ("Laplace", "Poisson, 64", "PLD"),
        ("Laplace", "Poisson, 64", "pure, delta = 0"),
        ("Gaussian", "full batch", "exact"),
        ("Gaussian", "full batch", "PLD"),
        ("Gaussian", "full batch", "RDP"),
        ("Laplace", "full batch", "PLD"),
        ("Laplace", "full batch", "RDP"),
        ("Laplace", "full batch", "pure, delta = 0"),
        ("Gaussian", "full batch", "Lemma 2.2 (replace-one)"),
    ]
    # Lemma 2.2 at T = 1000: 4 sqrt(2000 log(e + 2e5)) / 2; the epsilon that it delivers does not depend on T.
    lemma = 4 * math.sqrt(2000 * math.log(math.e + 2e5)) / 2
    told = rows["Gaussian", "full batch", "Lemma 2.2 (replace-one)"][4:8]
    assert told == [rounded_up(lemma, 6), rounded_up(lemma, 6), rounded_up(lemma / 1024, 6), "0.7351"]
    # Pure epsilon 2 over 1000 steps: q (e^(1/b) - 1) = e^0.002 - 1, and a deviation of sqrt(2) b.
    b = 1 / math.log1p(16 * math.expm1(0.002))
    pure = rows["Laplace", "Poisson, 64", "pure, delta = 0"]
    assert [float(x) for x in pure[4:7]] == pytest.approx([b, 2**0.5 * b, 2**0.5 * b / 64], rel=2e-4)
    for row in cells(out):
        assert float(row[7]) <= 2.0
        assert (row[8] == "") == (row[2] == "full batch")
        if row[8]:
            assert float(row[8]) > 3 * float(row[7]), "shuffled, this noise delivers much less"
    assert [row[1:4] for row in cells(out) if row[0] == "*"] == [["Gaussian", "Poisson, 64", "PLD"]]
    assert "recommended: Gaussian noise by PLD, Poisson, 64" in out


def test_plan_recommends_laplace_where_the_noise_is_below_c(dpzo):
    _, out, _ = dpzo(*PLAN, "--n", "1000", "--epsilon", "6", "--batch-size", "16")
    assert [row[1] for row in cells(out) if row[0] == "*"] == ["Laplace"]
    assert "recommended: Laplace" in out


def test_plan_with_k_directions_clips_jointly_or_each(dpzo):
    code, out, _ = dpzo(*PLAN, "--directions", "4")
    assert code == 0
    rows = {tuple(row[1:4]): float(row[4]) for row in cells(out)}
    jointly, each = (rows[f"Gaussian (4 {how})", "full batch", "exact"] for how in ("jointly", "each"))
    assert each == pytest.approx(2 * jointly, rel=2e-4)
    assert [row[1] for row in cells(out) if row[0] == "*"] == ["Gaussian (4 jointly)"]


def test_plan_under_replace_one_leaves_out_what_nothing_covers(dpzo):
    code, out, _ = dpzo(*PLAN, "--batch-size", "64", "--relation", "replace-one")
    assert code == 0
    assert [row[1:4] for row in cells(out) if row[2] != "full batch"] == [["Gaussian", "Poisson, 64", "PLD"]]


def test_plan_answers_by_row_and_no_library_warns(dpzo, caplog):
    """Kills: RDP's refusal for the table's; eighteen lines of a library's warnings."""
    target = ("--n", "1000", "--epsilon", "0.01", "--delta", "1e-12", "--batch-size", "16")
    code, out, err = dpzo(*PLAN, *target)
    assert code == 0
    rows = {tuple(row[1:4]): row[4:] for row in cells(out)}
    # RDP's Poisson row once had an answer: the divergence of a step had drowned in rounding, and counted as 0.
    assert rows["Gaussian", "Poisson, 16", "RDP"] == rows["Gaussian", "full batch", "RDP"] == [""] * 5
    assert float(rows["Gaussian", "full batch", "exact"][0]) == pytest.approx(18310.2, rel=1e-5)
    assert "Gaussian noise by RDP, full batch: not reached; noise of 1,000,000 C still leaves" in out
    assert err.startswith("8 of 11 ways lead to the target; calibrated in ")
    assert err.count("\n") == 1
    assert not [record for record in caplog.records if record.name == "absl"]
    assert logging.getLogger("absl").filters == []


def test_a_message_cannot_steer_the_terminal_or_be_read_as_markup(dpzo, tmp_path):
    assert "(U+001B)[2J" in refused(dpzo("epsilon", "--delta", "1e-5", "--ledger", "\x1b[2Jrun"))
    path = tmp_path / "[red]\x1b[2J[" / "run[/].ledger"
    path.parent.mkdir(parents=True)
    plan = dpzero(
        n=100, steps=2, step_size=0.1, zo_eps=0.1, clip_threshold=1.0, noise_multiplier=3.0, relation=Relation.ZERO_OUT
    )
    with Ledger(path) as ledger:
        list(run(plan, Quadratic(torch.ones(3), torch.ones(3)), torch.zeros(100, 3), Streams.secure(1), ledger=ledger))
    code, out, _ = dpzo("epsilon", "--ledger", str(path), "--delta", "1e-5")
    assert code == 0
    assert "[red](U+001B)[2J[/run[/].ledger" in out.replace("\n", "")
    assert "\x1b" not in out


def test_small_numbers_are_not_printed_as_nothing(dpzo):
    """Kills: 1.17e-5 printed as 0.0000."""
    code, out, _ = dpzo(*COST, "--noise-multiplier", "3.9e5")
    assert code == 0
    spent = {row[0]: float(row[2]) for row in cells(out)}
    exact = epsilon(SelfComposedDpEvent(GaussianDpEvent(3.9e5), 100), 1e-5, Relation.ADD_REMOVE)
    assert 0 < exact <= spent["exact"] <= exact * 1.001


@pytest.mark.parametrize(
    "bad",
    [
        ("--epsilon", "0"),
        ("--epsilon", "-1"),
        ("--epsilon", "inf"),
        ("--epsilon", "nan"),
        ("--epsilon", "two"),
        ("--delta", "0"),
        ("--delta", "0.5"),
        ("--batch-size", "2000"),
        ("--batch-size", "0"),
        ("--batch-size", "1.5"),
        ("--steps", "0"),
        ("--steps", "-3"),
        ("--steps", "2.5"),
        ("--n", "0"),
        ("--n", "1e3"),
        ("--directions", "0"),
        ("--relation", "none"),
        ("--sigma", "1"),
    ],
)
def test_plan_refuses_in_one_line(dpzo, bad):
    refused(dpzo(*PLAN, *bad))


def test_what_is_missing_or_unknown_is_named(dpzo):
    assert "--delta" in refused(dpzo(*PLAN[:-2]))
    assert "plam" in refused(dpzo("plam"))


def test_no_arguments_are_a_call_for_help(dpzo):
    code, out, _ = dpzo()
    assert code == 0
    for command in ("plan", "epsilon", "audit", "fetch"):
        assert command in out


@pytest.mark.parametrize("command", ["plan", "epsilon", "audit", "fetch"])
def test_every_option_is_documented(dpzo, command):
    _, out, _ = dpzo(command, "--help")
    assert code_options(command) <= {word for word in out.split() if word.startswith("--")}
    assert all(option.help for option in options(command))


def options(command):
    from typer.main import get_command

    return get_command(app).commands[command].params


def code_options(command):
    return {option.opts[0] for option in options(command) if option.opts[0].startswith("--")}


# --- epsilon ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "accountants"),
    [
        ((), {"exact", "PLD", "RDP"}),
        (("--batch-size", "50"), {"PLD", "RDP"}),
        (("--batch-size", "50", "--mechanism", "laplace"), {"PLD", "pure, delta = 0"}),
        (("--relation", "replace-one", "--mechanism", "laplace"), {"PLD", "RDP", "pure, delta = 0"}),
    ],
)
def test_epsilon_by_every_accountant_that_applies(dpzo, more, accountants):
    code, out, _ = dpzo(*COST, *more)
    assert code == 0
    rows = {row[0]: row[1:] for row in cells(out)}
    assert set(rows) == accountants
    relation = Relation.REPLACE_ONE if "replace-one" in more else Relation.ADD_REMOVE
    one = LaplaceDpEvent(2.0) if "laplace" in more else GaussianDpEvent(2.0)
    event = SelfComposedDpEvent(PoissonSampledDpEvent(0.05, one) if "50" in more else one, 100)
    names = {"exact": "closed-form", "PLD": "pld", "RDP": "rdp", "pure, delta = 0": "pure"}
    for name, (at, spent) in rows.items():
        assert float(at) == (0 if name.startswith("pure") else 1e-5)
        exact = epsilon(event, float(at), relation, names[name])
        assert exact <= float(spent) <= exact * 1.001
    assert f"{relation} neighbours" in out


@pytest.mark.parametrize(
    "bad",
    [
        ("--noise-multiplier", "0"),
        ("--noise-multiplier", "-1"),
        ("--noise-multiplier", "nan"),
        ("--steps", "0"),
        ("--steps", "1.5"),
        ("--n", "-1000"),
        ("--batch-size", "1001"),
        ("--delta", "0.001"),
        ("--mechanism", "cauchy"),
        ("--batch-size", "50", "--mechanism", "laplace", "--relation", "replace-one"),
        ("--ledger", "run.ledger"),
    ],
)
def test_epsilon_refuses_in_one_line(dpzo, bad):
    refused(dpzo(*COST, *bad))


def test_epsilon_needs_a_whole_description_or_a_ledger(dpzo, tmp_path):
    refused(dpzo("epsilon", "--delta", "1e-5", "--n", "10"))
    refused(dpzo("epsilon", "--delta", "1e-5", "--ledger", str(tmp_path / "none")))
    (tmp_path / "empty").touch()
    refused(dpzo("epsilon", "--delta", "1e-5", "--ledger", str(tmp_path / "empty")))


@pytest.mark.parametrize("private", [False, True])
def test_epsilon_of_a_ledger(dpzo, tmp_path, private):
    plan = dpzero(
        n=100, steps=10, step_size=0.1, zo_eps=0.1, clip_threshold=1.0, noise_multiplier=3.0, batch_size=25,
        relation=Relation.ZERO_OUT,
    )  # fmt: skip
    path, model = tmp_path / "run.ledger", Quadratic(torch.ones(3), torch.ones(3))
    streams = Streams.secure(1) if private else Streams.not_private(1, 2)
    with Ledger(path) as ledger:
        list(islice(run(plan, model, torch.zeros(100, 3), streams, ledger=ledger), 4))
    code, out, _ = dpzo("epsilon", "--ledger", str(path), "--delta", "1e-5")
    assert code == 0
    charged = read(path).charged
    assert {row[0]: row[2] for row in cells(out)}["PLD"] == rounded_up(plan.epsilon(1e-5, steps=charged))
    for word in ("zero-out", "record", f"{charged} of 10 steps charged", "4 released", "PoissonSampler"):
        assert word in out
    assert ("NOT PRIVATE" in out) != private


def test_fetch_lists_the_assets_and_refuses_others(dpzo):
    code, out, _ = dpzo("fetch", "--list")
    assert code == 0
    assert "smollm2-135m" in out
    code, _, err = dpzo("fetch", "gpt-17")
    assert code == 2
    assert "gpt-17" in err


GUESSES = ("--clip", "10", "--trace", "20", "--slope", "0.5", "--gap", "0.5")


def test_plan_proposes_stages_from_guesses(dpzo):
    code, out, _ = dpzo(*PLAN, "--batch-size", "64", *GUESSES)
    assert code == 0
    proposed = [row for row in cells(out) if len(row) == 4 and row[0].isdigit()]
    assert sum(int(row[1]) for row in proposed) == 1000
    _, _, step_size, zo_eps = proposed[0]
    assert 0 < float(step_size) < 1 / 20
    assert float(zo_eps) == pytest.approx(math.sqrt(2 * 2e-7 / 20), rel=0.1)
    assert "errs by less than a tenth" in out
    code, out, _ = dpzo(*PLAN, *GUESSES, "--curvature", "1", "--mu", "0.2")
    sizes = [float(row[2]) for row in cells(out) if len(row) == 4 and row[0].isdigit()]
    assert code == 0
    assert len(sizes) > 1
    assert all(later < 0.6 * sooner for sooner, later in pairwise(sizes))
    assert all(float(row[3]) == float(zo_eps) for row in cells(out) if len(row) == 4 and row[0].isdigit())
    code, out, _ = dpzo(*PLAN, *GUESSES, "--third", "100")
    [[*_, zo_eps]] = [row for row in cells(out) if len(row) == 4 and row[0] == "1"]
    assert float(zo_eps) == pytest.approx((3 * 2e-7 / 100) ** (1 / 3), rel=0.05)
    code, out, _ = dpzo(*PLAN, *GUESSES, "--directions", "4")
    assert code == 0
    assert "derivative is 2.46;" in out  # a scalar is a fourth of a derivative, and has the noise of one direction's


@pytest.mark.parametrize("some", [("--clip", "1"), ("--mu", "1"), ("--loss-error", "1e-6"), GUESSES[:6]], ids=str)
def test_a_proposal_wants_all_its_guesses(dpzo, some):
    assert "all four, or none" in refused(dpzo(*PLAN, *some))


@pytest.mark.parametrize(
    "name", ["--clip", "--trace", "--slope", "--gap", "--curvature", "--loss-error", "--third", "--mu"]
)
@pytest.mark.parametrize("value", ["-1", "0", "nan", "1e200", "1e-200"])
def test_a_guess_that_is_no_number_above_zero_is_refused_before_the_table(dpzo, name, value):
    assert "positive" in refused(dpzo(*PLAN, *GUESSES, name, value))


def test_guesses_that_no_loss_has_together_are_refused_before_the_table(dpzo):
    assert "curvature of at most the trace" in refused(dpzo(*PLAN, *GUESSES, "--curvature", "21"))
    assert "curvature gap" in refused(dpzo(*PLAN, *GUESSES, "--slope", "4.6"))
    assert "PL constant" in refused(dpzo(*PLAN, *GUESSES, "--mu", "0.3"))
