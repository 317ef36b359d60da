"""A run that is killed at any instant has charged all that it drew, and goes on."""

import os
import random
import subprocess
import sys
from itertools import count

import pytest

from dpzo import replay
from dpzo.fingerprint import fingerprint
from dpzo.ledger import read
from tests import killed_run

KILLS, DELTA = 50, 1e-5

pytestmark = pytest.mark.skipif(os.name != "posix", reason="fork and SIGKILL")


@pytest.fixture
def attempt():
    """One more attempt at the run in a folder, killed some time after its ledger has grown by so many bytes."""
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    with subprocess.Popen(
        [sys.executable, killed_run.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | one_thread,
    ) as server:
        assert server.stdout.readline() == "1\n", "one thread, so that a fork is whole"

        def ask(folder, growth, seconds):
            server.stdin.write(f"{growth} {seconds} {folder}\n")
            server.stdin.flush()
            return server.stdout.readline().strip()

        yield ask
        server.stdin.close()


def killed_and_finished(attempt, folder, kills, chance):
    """Kill a run up to ``kills`` times, look at it after each, let it end; return how many kills and lost steps."""
    folder.mkdir()
    path, draws, made, spent = folder / "ledger", folder / "draws", 0, [0]
    outcome = "killed"
    while made < kills and outcome == "killed":
        # One in five while the run begins or replays; the others anywhere in a step.
        growth, seconds = (0, 0.03) if made % 5 == 0 else (chance.randrange(1, 2000), 0.002)
        outcome = attempt(folder, growth, chance.uniform(0, seconds))
        assert outcome in ("killed", "finished")
        made += outcome == "killed"
        drawn = draws.stat().st_size if draws.exists() else 0
        if not path.exists() or b"\n" not in path.read_bytes():
            assert drawn == 0
            continue
        account = read(path)
        assert len(account.steps) <= drawn <= account.charged <= killed_run.STEPS
        assert account.charged <= len(account.steps) + 2 * made, "one step, and one for a torn line"
        spent.append(account.charged)
    if outcome == "killed":
        assert attempt(folder, 10**9, 0) == "finished"
    account = read(path)
    assert [*spent, account.charged] == sorted([*spent, killed_run.STEPS])
    costs = [account._replace(charged=steps).epsilon(DELTA) for steps in [*spent[::10], killed_run.STEPS]]
    assert costs == sorted(costs)
    assert costs[-1] == killed_run.PLAN.epsilon(DELTA)
    indices = [step.index for step in account.steps]
    assert indices == sorted(set(indices))
    assert len(indices) <= draws.stat().st_size <= account.charged
    base = killed_run.model()
    replay(killed_run.PLAN, base.params, account.steps)
    assert fingerprint(base.params) == (folder / "final").read_text()
    return made, killed_run.STEPS - len(indices)


def test_a_run_killed_fifty_times_never_understates_what_it_spent_and_ends_where_its_ledger_says(attempt, tmp_path):
    """Kills: a charge written after the step, or left in a buffer; a lost step tried again; a release written first."""
    chance, kills, lost = random.Random(0), 0, 0
    for number in count():
        if kills == KILLS:
            break
        made, missing = killed_and_finished(attempt, tmp_path / f"run {number}", KILLS - kills, chance)
        kills, lost = kills + made, lost + missing
    assert lost > 5, "some kills must come between a charge and its release"
