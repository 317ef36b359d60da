"""The command line, run as its users run it."""

import sys

import pytest

from dpzo.cli import main


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


def test_plan_prints_every_accountant_and_the_papers_noise(dpzo):
    code, out, _ = dpzo(*PLAN, "--batch-size", "64")
    assert code == 0
    for word in ("PLD", "RDP", "exact", "paper"):
        assert word in out
    # Lemma 2.2 at T = 1000: 4 sqrt(2000 log(e + 2e5)) / 2; the epsilon that it delivers does not depend on T.
    assert "312.4879" in out
    assert "0.7350" in out


@pytest.mark.parametrize(
    "bad",
    [
        ("--epsilon", "0"),
        ("--epsilon", "-1"),
        ("--epsilon", "inf"),
        ("--epsilon", "nan"),
        ("--delta", "0"),
        ("--delta", "0.5"),
        ("--batch-size", "2000"),
        ("--steps", "0"),
        ("--n", "0"),
    ],
)
def test_plan_refuses_in_one_line(dpzo, bad):
    code, out, err = dpzo(*PLAN, *bad)
    assert code == 2
    assert out == ""
    assert err.startswith("error: expected ")
    assert "; got " in err
    assert err.count("\n") == 1


def test_fetch_lists_the_assets_and_refuses_others(dpzo):
    code, out, _ = dpzo("fetch", "--list")
    assert code == 0
    assert "smollm2-135m" in out
    code, _, err = dpzo("fetch", "gpt-17")
    assert code == 2
    assert "gpt-17" in err
