"""The write-ahead ledger: a step is charged on disk before it touches the data, so no crash makes epsilon smaller.

    with Ledger("run.ledger") as ledger:
        for step in run(plan, model, data, streams, ledger=ledger):
            ...

The same lines, with the model at its starting weights again, go on after a crash. One line of JSON each, appended and
never changed: first what the run is, then for each step a charge (synced to the disk before the step begins) and, once
the step's noise has been added, its release: what anyone may see of it. Every line carries a seal, a hash of itself and
of all lines before it. A step that was charged but not released, because the process died in between, is paid for and
lost: it is never tried again under the same noise. The price is one sync of the disk a step.

From the starting weights and the releases the trained weights follow, so a run goes on from its ledger alone. DPGD-0th
releases vectors, which are not in it: such a run goes on from a checkpoint.

What it cannot see: an older copy put in its place, or whole lines cut off its end (unless the weights are later ones);
a forger, who can compute seals too; on Windows, a second run at the same time. It holds a hash of the data, which lets
whoever has a guess of all the data confirm it: publish the steps (they are covered by the guarantee), not the file.
"""

import errno
import json
import math
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from hashlib import blake2b
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from torch import Tensor

from dpzo.errors import Refusal
from dpzo.fingerprint import fingerprint
from dpzo.plan import Plan
from dpzo.randomness import Streams
from dpzo.types import Data, Step

_SCHEMA = 1
_TORN_HEADER = re.compile(rb"[0-9a-f]{0,32}|[0-9a-f]{32} .*")


class Ledger:
    """A run's ledger at ``path``, created when it does not exist and this process's alone until it is closed.

    ``data`` is a text of your own that names the training data; none: the ``fingerprint`` of all records.
    ``charged`` is the number of steps that are paid for; ``dpzo.ledger.read(path).epsilon(delta)`` is their cost.
    ``known`` is the number of steps that the weights had behind them when the run began here.

    Raises:
        Refusal: a file that cannot be written, or that another run has open.
    """

    def __init__(self, path: str | Path, *, data: str | None = None) -> None:
        self.path, self.data, self.charged, self.known = Path(path), data, 0, 0
        self._process = os.getpid()
        self._seal: bytes | None = None  # of the last line; None until the run has begun and after a failed write
        self._end, self._in_step = 0, False
        try:
            _check_kind(self.path)
            self._file = FileIO(self.path, "r+", opener=lambda name, flags: os.open(name, flags | os.O_CREAT, 0o666))
            try:
                _lock(self._file)
                _sync_folder(self.path.parent)
            except BaseException:
                self._file.close()
                raise
        except OSError as error:
            raise Refusal(
                f"a ledger at {self.path} that can be written and that no other run has open",
                "one in use" if isinstance(error, BlockingIOError) else error.strerror,
                "Wait for the other run, free the disk, allow writing or choose another path; nothing was spent.",
            ) from None

    def begin(self, plan: Plan, params: Mapping[str, Tensor], streams: Streams, data: Data) -> list[Step]:
        """Write what the run is, or check that the file is of this run; return the steps that ``params`` lack.

        Only steps that can be replayed are returned: the vectors that DPGD-0th released since ``params`` are lost.

        Raises:
            Refusal: a file that is damaged or of another run, or weights that the ledger does not know. The file is
                as it was.
        """
        told = {
            "ledger": _SCHEMA,
            "plan": plan.describe(),
            "public_seed": streams.public_seed,
            "private": streams.are_private,
            "weights": fingerprint(params),
            "data": fingerprint(data[np.arange(len(data))]) if self.data is None else self.data,
        }
        if not streams.are_private:
            told["NOT PRIVATE"] = "whoever knows the seeds can compute the batches and the noise"
        self._check_open()  # before the position in the file is moved: a fork shares it
        self._file.seek(0)
        content = self._file.readall()
        *whole, torn = content.split(b"\n")
        if not whole:
            if not _TORN_HEADER.fullmatch(torn):
                raise Refusal(f"a ledger, or no file, at {self.path}", "something else", "Choose another path.")
            self._seal, self._end, self.charged, self.known, self._in_step = b"", 0, 0, 0, False
            self._append(told, sync=True)
            return []
        account = _account(whole, self.path)
        parts = {"plan": "plan", "data": "data", "public_seed": "public seed", "private": "privacy of the streams"}
        for key, part in parts.items():
            if account.header[key] != told[key]:
                raise Refusal(
                    f"the {part} of the run that {self.path} is of",
                    "another",
                    "Start a new ledger for a new run, or give what this run had.",
                )
        known = account.weights.get(str(told["weights"]))
        if known is None:
            raise Refusal(
                f"weights that {self.path} knows: the starting ones or a checkpoint's",
                "others",
                "The ledger is of another model, or older than the weights. Give the weights that it began with.",
            )
        self._seal, self.charged, self._in_step, self.known = account.seal, account.charged, False, known
        self._end = len(content) - len(torn)
        if torn and self.charged < plan.steps:  # what it was going to say is unknown: perhaps a charge
            self.charge(self.charged)  # written over the torn bytes, so that a crash here leaves others torn
            self._in_step = False
        return [step for step in account.steps if step.index >= known and step.scalars]

    def charge(self, index: int) -> None:
        """Put step ``index`` on the disk as spent; when this raises, nothing of the step has happened.

        Raises:
            Refusal: an index that is not the next one, a full disk, or a process that did not open the ledger.
        """
        if index != self.charged:
            raise Refusal(f"step {self.charged}, the first never charged", index, "Begin again from the ledger.")
        self._append({"charge": index}, sync=True)
        self.charged, self._in_step = index + 1, True

    def release(self, step: Step) -> None:
        """Write what a charged step released."""
        told = {"release": step.index, "stage": step.stage, "seed": f"{step.seed:016x}"}
        told |= {"mask": step.mask} if step.mask else {}
        self._append(told | {"scalars": [s.hex() for s in step.scalars]}, sync=False)
        self._in_step = False

    def checkpoint(self, params: Mapping[str, Tensor], after: Step) -> None:
        """Note the weights as they are after a step, so that the run can go on from them; then save them yourself.

        In this order, and the file under another name until it is whole: so no crash leaves only unknown weights.

        Raises:
            Refusal: a step that was not taken, weights from the middle of one, or a full disk.
        """
        if self._in_step or not 0 <= after.index < self.charged:
            raise Refusal("the weights after a whole step", f"step {after.index}", "Give the last step of the run.")
        self._append({"checkpoint": after.index + 1, "weights": fingerprint(params)}, sync=True)

    def close(self) -> None:
        """Let another run have the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._file.closed:
            raise Refusal(f"{self.path} open", "one that was closed", "Open it again.")
        if os.getpid() != self._process:
            raise Refusal("the process that opened the ledger", "a fork of it", "Open the ledger after the fork.")

    def _append(self, told: dict[str, Any], *, sync: bool) -> None:
        self._check_open()
        if self._seal is None:
            raise Refusal("a run that has begun", "none, or one that broke off", "Begin again from the ledger.")
        text = json.dumps(told, sort_keys=True).encode()
        seal, self._seal = _sealed(self._seal, text), None
        line = seal + b" " + text + b"\n"
        try:
            self._file.seek(self._end)
            rest = line
            while rest:
                rest = rest[self._file.write(rest) :]
            self._file.truncate()
            if sync:
                os.fsync(self._file.fileno())
        except OSError as error:
            with suppress(OSError):  # half a line would read as one more charge
                self._file.truncate(self._end)
            raise Refusal(
                f"room for a line in {self.path}",
                error.strerror,
                "The run stops here; what the ledger has charged is spent. Free some space and go on.",
            ) from error
        self._seal, self._end = seal, self._end + len(line)


class Account(NamedTuple):
    """What a ledger says: what the run is, its released steps, how many were charged, and the weights it knows."""

    header: dict[str, Any]
    steps: list[Step]
    charged: int
    weights: dict[str, int]
    seal: bytes

    @property
    def plan(self) -> Plan:
        """The run's plan."""
        return Plan.described(self.header["plan"])

    def epsilon(self, delta: float) -> float:
        """What the charged steps cost, released or not; infinite once a step was taken with seeded noise."""
        if self.charged and not self.header["private"]:
            return math.inf
        return self.plan.epsilon(delta, steps=self.charged)


def read(path: str | Path) -> Account:
    """Read a ledger, also while a run writes it; a torn last line counts as one more charged step.

    Raises:
        Refusal: no file, or one that is damaged.
    """
    try:
        _check_kind(Path(path))
        *whole, torn = Path(path).read_bytes().split(b"\n")
    except OSError as error:
        raise Refusal(f"a ledger at {path}", error.strerror, "Give the path of a run's ledger.") from error
    if not whole:
        raise Refusal("a ledger with its first line", "none", "This run had not begun, or it is no ledger.")
    account = _account(whole, Path(path))
    if torn:
        return account._replace(charged=min(account.charged + 1, account.plan.steps))
    return account


def _account(lines: list[bytes], path: Path) -> Account:
    seal, parts = b"", []
    for number, line in enumerate(lines, 1):
        written, _, text = line.partition(b" ")
        if written != (seal := _sealed(seal, text)):
            raise Refusal(
                f"the lines of {path} as they were written",
                f"line {number} with a seal that does not fit it and the lines before",
                "Restore the file; never charge a damaged ledger as if it were whole.",
            )
        parts.append(json.loads(text))
    header, *rest = parts
    if header["ledger"] != _SCHEMA:
        raise Refusal(f"a ledger of schema {_SCHEMA}", header["ledger"], "Use the version of dpzo that wrote it.")
    steps, charged, weights = [], 0, {header["weights"]: 0}
    for part in rest:
        if "charge" in part:
            charged = part["charge"] + 1
        elif "checkpoint" in part:
            weights[part["weights"]] = part["checkpoint"]
        else:
            scalars = tuple(map(float.fromhex, part["scalars"]))
            steps.append(Step(part["release"], part["stage"], int(part["seed"], 16), scalars, part.get("mask", "")))
    return Account(header, steps, charged, weights, seal)


def _sealed(before: bytes, text: bytes) -> bytes:
    return blake2b(before + b" " + text, digest_size=16).hexdigest().encode()


def _check_kind(path: Path) -> None:
    if path.exists() and not path.is_file():  # a device or a pipe keeps nothing, and reading one may never end
        raise OSError(errno.EINVAL, "not a file")


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":  # elsewhere a folder cannot be opened
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _lock(file: FileIO) -> None:
    try:
        import fcntl
    except ImportError:  # on Windows
        return
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
