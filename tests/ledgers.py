"""Small runs whose ledgers are written, torn, damaged and gone on with."""

import os
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from dpzo import Ledger, Refusal, Relation, Stage, Streams, dp_aggzo, dpgd_zeroth, dpzero, mezo, run
from dpzo.models.quadratic import Quadratic

STAGES = (Stage(2, 0.1, 0.1), Stage(4, 0.02, 0.2), Stage(2, 0.05, 0.1))
T = sum(stage.steps for stage in STAGES)
COMMON = {"n": 10, "steps": 1, "step_size": 0.1, "zo_eps": 0.1, "batch_size": 4}
PRIVATE = {"clip_threshold": 1.0, "noise_multiplier": 2.0, "relation": Relation.ADD_REMOVE}
PLAN = replace(dpzero(**COMMON, **PRIVATE), stages=STAGES)
DPGD = replace(dpgd_zeroth(**COMMON, **PRIVATE), stages=STAGES)
REPLAYED = {
    "dpzero": PLAN,
    "dp-aggzo": replace(dp_aggzo(**COMMON, **PRIVATE, directions=3), stages=STAGES),
    "mezo": replace(mezo(**COMMON), stages=STAGES),
}
DATA = torch.linspace(-1, 2, 50).view(10, 5)


class Killed(BaseException):
    """Ends a run in the middle of a step, as a signal does: nothing is left of it but the files."""


class Counted(Quadratic):
    """Counts its forward passes, two a step and none before; killed instead of the one numbered ``last``."""

    made_up = None

    def __init__(self, last=None):
        super().__init__(torch.linspace(0.5, 1.5, 5), torch.zeros(5))
        self.calls, self.last = 0, last

    def losses(self, records):
        if self.calls == self.last:
            raise Killed
        self.calls += 1
        return super().losses(records)


def weights(model):
    return model.params["x"].clone()


def streams():
    return Streams.not_private(1, 2)


def goes_on(path):
    """The steps of the run that the ledger at ``path`` is of, to its end."""
    with Ledger(path) as ledger:
        return list(run(PLAN, Counted(), DATA, streams(), ledger=ledger))


def killed_at(path, passes, given=streams, plan=PLAN):
    """Take the run at ``path`` up, and be killed after so many forward passes."""
    with Ledger(path) as ledger, pytest.raises(Killed):
        list(run(plan, Counted(passes), DATA, given(), ledger=ledger))


def key_of(path):
    return path.with_name(f"{path.name}.key")


@cache
def contents():
    """Ledgers of one run by what they end with, after three steps; their key, and the checkpoint's weights."""
    made = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.ledger"
        model = Counted()
        with Ledger(path) as ledger:
            steps = run(PLAN, model, DATA, streams(), ledger=ledger)
            made["header"], made["key"] = path.read_bytes(), key_of(path).read_bytes()
            taken = [next(steps) for _ in range(3)]
            made["release"] = path.read_bytes()
            ledger.checkpoint(model.params, taken[-1])
            made["checkpoint"], made["weights"] = path.read_bytes(), model.params.snapshot()
            list(steps)
            made["finished"] = path.read_bytes()
        path.write_bytes(made["header"])
        killed_at(path, 6)
        made["charge"] = path.read_bytes()
    return made


def put(path, content):
    """Write ``content``, which comes from ``contents``, with its key."""
    path.write_bytes(content)
    key_of(path).write_bytes(contents()["key"])


def refused(path, match, plan=PLAN, m=None, data=DATA, given=streams, **options):
    """The run is refused at the call, before a forward pass, and the file stays as it is."""
    m = m or Counted()
    before, weights = path.read_bytes(), m.params.snapshot()
    with Ledger(path, **options) as ledger, pytest.raises(Refusal, match=match):
        run(plan, m, data, given(), ledger=ledger)
    assert path.read_bytes() == before
    assert m.calls == 0
    assert all(torch.equal(m.params[name], weights[name]) for name in weights)


def in_a_fork(what):
    """Whether ``what`` is refused in a child process, and with which words."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            what()
            os.write(writing, b"done")
        except Refusal as refusal:
            os.write(writing, str(refusal).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said
