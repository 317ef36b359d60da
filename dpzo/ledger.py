"""The write-ahead ledger: a step is charged on disk before it touches the data, so no crash makes epsilon smaller.

One line of JSON each, appended and never changed: first what the run is, then for each step a charge (synced to the
disk before the step begins) and, once the step's noise has been added, its release: what anyone may see of it. Every
line carries a seal, a hash of itself and of all lines before it. A step that was charged but not released, because the
process died in between, is paid for and lost: it is never tried again under the same noise.

From the starting weights and the releases the trained weights follow, so a run goes on from its ledger alone.
DPGD-0th's vectors are not in it: such a run goes on from a checkpoint.

The ledger holds a hash of the data, which lets whoever has a guess of all the data confirm it: publish the steps (they
are covered by the guarantee), not the file.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from dpzo.errors import Refusal
from dpzo.plan import Plan
from dpzo.randomness import Streams
from dpzo.types import Step

_SCHEMA = 1


class Ledger:
    """A run's ledger at ``path``, created when it does not exist; ``data`` is ``fingerprint`` of the training data.

    Raises:
        Refusal: a file that cannot be written, or that another process has open.
    """

    def __init__(self, path: str | Path, *, data: str) -> None:
        self.path, self.data = Path(path), data
        try:
            new = not self.path.exists()
            self._file: BinaryIO = open(self.path, "a+b")  # noqa: SIM115  (closed by close)
            _lock(self._file, self.path)
            if new:
                _sync_folder(self.path.parent)
        except OSError as error:
            raise Refusal(
                f"a ledger that can be written at {self.path}",
                error.strerror,
                "Free the disk, allow writing or choose another path; nothing was spent.",
            ) from error
        self._process, self._seal, self.charged = os.getpid(), "", 0

    def begin(self, plan: Plan, params: Mapping[str, Tensor], streams: Streams) -> list[Step]:
        """Write what the run is, or check that the file is of this run; return the steps that ``params`` lack.

        Raises:
            Refusal: a file that is damaged or of another run, or weights that the ledger does not know.
        """
        told = {
            "ledger": _SCHEMA,
            "plan": plan.describe(),
            "public_seed": streams.public_seed,
            "private": streams.are_private,
            "weights": fingerprint(params),
            "data": self.data,
        }
        whole, torn = self._lines()
        if not whole:
            self._file.truncate(0)
            self._append(told, sync=True)
            return []
        account = _account(whole, self.path)
        for key in ("ledger", "plan", "public_seed", "private", "data"):
            if account.header[key] != told[key]:
                raise Refusal(
                    f"the {key} of the run that {self.path} is of",
                    "another" if key in ("plan", "data") else told[key],
                    "Start a new ledger for a new run, or give what this run had.",
                )
        known = account.weights.get(str(told["weights"]))
        if known is None:
            raise Refusal(
                f"weights that {self.path} knows: the starting ones or a checkpoint's",
                "others",
                "The ledger is of another model, or older than the weights. Give the weights that it began with.",
            )
        self._seal, self.charged = account.seal, account.charged
        if torn:  # what it was going to say is unknown: one more step may have been charged
            self._file.truncate(self._file.seek(0, os.SEEK_END) - torn)
            if self.charged < plan.steps:
                self.charge(self.charged)
        return [step for step in account.steps if step.index >= known]

    def charge(self, index: int) -> None:
        """Put step ``index`` on the disk as spent; when this raises, nothing of the step has happened.

        Raises:
            Refusal: an index that was charged before, a full disk, or a process that did not open the ledger.
        """
        if index < self.charged:
            raise Refusal(f"a step from {self.charged} on, never charged before", index, "Go on with the next step.")
        self._append({"charge": index}, sync=True)
        self.charged = index + 1

    def release(self, step: Step) -> None:
        """Write what a charged step released."""
        told = {"release": step.index, "stage": step.stage, "seed": f"{step.seed:016x}"}
        self._append(told | {"scalars": [s.hex() for s in step.scalars]}, sync=False)

    def checkpoint(self, params: Mapping[str, Tensor], path: str | Path) -> None:
        """Write the weights to ``path`` (safetensors) and note them: a run can go on from there."""
        from safetensors.torch import save_file

        whole = Path(path).with_name(Path(path).name + ".part")
        save_file({name: t.detach().contiguous() for name, t in params.items()}, whole)
        with open(whole, "rb") as written:
            os.fsync(written.fileno())
        self._append({"checkpoint": self.charged, "weights": fingerprint(params)}, sync=True)
        whole.replace(path)
        _sync_folder(Path(path).parent)

    def close(self) -> None:
        """Let another process have the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def _append(self, told: dict[str, Any], *, sync: bool) -> None:
        if os.getpid() != self._process:
            raise Refusal("the process that opened the ledger", "a fork of it", "Open the ledger after the fork.")
        text = json.dumps(told, sort_keys=True)
        seal = _sealed(self._seal, text)
        line = f"{seal} {text}\n".encode()
        size = self._file.seek(0, os.SEEK_END)
        try:
            self._file.write(line)
            self._file.flush()
            if sync:
                os.fsync(self._file.fileno())
        except OSError as error:
            _undo(self._file, size)
            raise Refusal(
                f"room for a line in {self.path}",
                error.strerror,
                "The run stops here, before its next step; what the ledger has charged is spent. Free some space.",
            ) from error
        self._seal = seal

    def _lines(self) -> tuple[list[str], int]:
        self._file.seek(0)
        *whole, torn = self._file.read().split(b"\n")
        return [line.decode(errors="replace") for line in whole], len(torn)


class Account(NamedTuple):
    """What a ledger says: what the run is, its released steps, how many were charged, and the weights it knows."""

    header: dict[str, Any]
    steps: list[Step]
    charged: int
    weights: dict[str, int]
    seal: str

    @property
    def plan(self) -> Plan:
        """The run's plan."""
        return Plan.described(self.header["plan"])

    def epsilon(self, delta: float) -> float:
        """What the charged steps cost, released or not."""
        return self.plan.epsilon(delta, steps=self.charged)


def read(path: str | Path) -> Account:
    """Read a ledger without opening it for writing; a torn last line counts as one more charged step.

    Raises:
        Refusal: no file, or one that is damaged.
    """
    try:
        *whole, torn = Path(path).read_bytes().split(b"\n")
    except OSError as error:
        raise Refusal(f"a ledger at {path}", error.strerror, "Give the path of a run's ledger.") from error
    if not whole:
        raise Refusal("a ledger with its first line", "an empty file", "This run had not begun.")
    account = _account([line.decode(errors="replace") for line in whole], Path(path))
    more = min(account.charged + bool(torn), account.plan.steps)
    return account._replace(charged=more)


def _account(lines: list[str], path: Path) -> Account:
    def damaged(number: int) -> Refusal:
        return Refusal(
            f"the lines of {path} as they were written",
            f"line {number} with a seal that does not fit it and the lines before",
            "Restore the file; never charge a damaged ledger as if it were whole.",
        )

    seal, parts = "", []
    for number, line in enumerate(lines, 1):
        written, _, text = line.partition(" ")
        if written != (seal := _sealed(seal, text)):
            raise damaged(number)
        parts.append(json.loads(text))
    header, *rest = parts
    steps, charged, weights = [], 0, {header["weights"]: 0}
    for part in rest:
        if "charge" in part:
            charged = part["charge"] + 1
        elif "checkpoint" in part:
            weights[part["weights"]] = part["checkpoint"]
        else:
            scalars = tuple(map(float.fromhex, part["scalars"]))
            steps.append(Step(part["release"], part["stage"], int(part["seed"], 16), scalars))
    return Account(header, steps, charged, weights, seal)


def fingerprint(what: Any) -> str:
    """sha256 of tensors, arrays, numbers, texts, and of lists, mappings and dataclasses of them.

    Raises:
        Refusal: something else; name the data yourself then, by any text that changes when they do.
    """
    sha = hashlib.sha256()
    _feed(sha, what)
    return sha.hexdigest()


def _feed(sha: Any, what: Any) -> None:
    if isinstance(what, Tensor):
        what = what.detach().cpu().contiguous()
        sha.update(f"tensor {what.dtype} {tuple(what.shape)} ".encode())
        sha.update(memoryview(what.view(-1).view(torch.uint8).numpy()) if what.numel() else b"")
    elif isinstance(what, np.ndarray) and what.dtype != object:
        sha.update(f"array {what.dtype.str} {what.shape} ".encode())
        sha.update(np.ascontiguousarray(what).tobytes())
    elif what is None or isinstance(what, bool | int | float | str):
        text = repr(what)
        sha.update(f"{type(what).__name__} {len(text)} {text} ".encode())
    elif is_dataclass(what) and not isinstance(what, type):
        sha.update(f"{type(what).__name__} ".encode())
        _feed(sha, {field.name: getattr(what, field.name) for field in fields(what)})
    elif isinstance(what, Mapping):
        sha.update(f"mapping {len(what)} ".encode())
        for key in what:
            _feed(sha, key)
            _feed(sha, what[key])
    elif isinstance(what, list | tuple):
        sha.update(f"list {len(what)} ".encode())
        for part in what:
            _feed(sha, part)
    else:
        raise Refusal(
            "tensors, arrays, numbers, texts, and lists, mappings or dataclasses of them, to fingerprint",
            type(what).__name__,
            "Give Ledger(data=...) a text of your own that changes whenever the data do.",
        )


def _sealed(before: str, text: str) -> str:
    return hashlib.blake2b(f"{before} {text}".encode(), digest_size=16).hexdigest()


def _undo(file: BinaryIO, size: int) -> None:
    # Half a line at the end would read as a torn charge; take it back if the disk lets us.
    try:
        os.ftruncate(file.fileno(), size)
    except OSError:
        return


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _lock(file: BinaryIO, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # not on Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Refusal(f"a ledger that no other run has open at {path}", "one in use", "Wait for it to end.") from None
