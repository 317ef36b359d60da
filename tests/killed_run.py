"""A small real run that is killed: a warm process forks children that train, and kills them when told to.

Each line on stdin is "bytes seconds folder": fork, wait until the ledger in the folder has grown by so many bytes, then
so many seconds, then SIGKILL. The answer is "killed", "finished", or how else the child ended. Forking from here saves
each child the seconds of importing torch, and is sound because this process has one thread: it never runs a forward
pass, and says how many threads it has in its first line.
"""

import os
import signal
import sys
import time
from pathlib import Path

import torch
from torch import nn

from dpzo import Ledger, ModuleModel, Relation, Streams, dpzero, run
from dpzo.fingerprint import fingerprint
from dpzo.randomness import OsEntropy

N, STEPS = 64, 1000
PLAN = dpzero(
    n=N,
    steps=STEPS,
    step_size=1e-3,
    zo_eps=1e-2,
    clip_threshold=1.0,
    noise_multiplier=2.0,
    batch_size=8,
    relation=Relation.ADD_REMOVE,
)


def data():
    return torch.linspace(-1, 1, 4 * N).view(N, 4)


def model():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
    return ModuleModel(module, lambda module, records: (module(records)[:, 0] - records[:, 0].square()).square())


class Counted(OsEntropy):
    """Real noise, and a file that is one byte longer before each draw leaves."""

    def __init__(self, path):
        self.file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def at(self, step):
        return self

    def bits(self, count):
        os.write(self.file, b".")
        os.fsync(self.file)
        return super().bits(count)


def train(folder):
    m = model()
    with Ledger(folder / "ledger") as ledger:
        for _ in run(PLAN, m, data(), Streams(5, OsEntropy(), Counted(folder / "draws")), ledger=ledger):
            pass
    (folder / "final").write_text(fingerprint(m.params))


def attempt(folder, growth, seconds):
    ledger = folder / "ledger"

    def size():
        return ledger.stat().st_size if ledger.exists() else 0

    enough = size() + growth
    child = os.fork()
    if child == 0:
        status = 1
        try:
            train(folder)
            status = 0
        finally:
            os._exit(status)
    ended = 0
    while not ended and size() < enough:
        time.sleep(1e-4)
        ended, status = os.waitpid(child, os.WNOHANG)
    if not ended:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return {0: "finished", -signal.SIGKILL: "killed"}.get(code, f"ended with {code}")


def main():
    torch.set_num_threads(1)
    tasks = Path("/proc/self/task")
    print(len(list(tasks.iterdir())) if tasks.exists() else 1, flush=True)
    for line in sys.stdin:
        growth, seconds, folder = line.rstrip("\n").split(" ", 2)
        print(attempt(Path(folder), int(growth), float(seconds)), flush=True)


if __name__ == "__main__":
    main()
