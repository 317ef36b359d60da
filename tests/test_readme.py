"""The README does what it says."""

import re
import subprocess
import sys
from pathlib import Path

import dpzo.ledger
from reproduce.readme import with_table

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_the_library_example_runs_as_pasted_and_learns(tmp_path):
    (tmp_path / "example.py").write_text("".join(re.findall(r"```python\n(.*?)```", README, re.DOTALL)))
    ran = subprocess.run([sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    before, after = (float(x) for x in re.findall(r"tensor\(([0-9.]+)", ran.stdout))
    assert after < 0.5 * before
    assert 1.9 < float(re.search(r"plan ([0-9.]+)", ran.stdout).group(1)) <= 2.0
    account = dpzo.ledger.read(
        tmp_path / "run.ledger"
    )  # the second block's run, which goes on from the first's weights
    assert account.charged == len(account.steps) == 400
    assert 1.9 < account.epsilon(1e-5) <= 2.0


def test_the_table_is_the_committed_one():
    table = (ROOT / "reproduce" / "results" / "table2.md").read_text()
    assert with_table(README, table) == README
    assert table.count("|") > 20


def test_there_are_exactly_two_set_up_commands():
    commands = re.findall(r"^python3 .*$", README, re.MULTILINE)
    assert len(commands) == 2
    assert commands[0].endswith("reproduce/table2.py")
    assert commands[1].endswith("pytest")
