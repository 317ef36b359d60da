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

While a run goes on, each charge looks whether the file is still there, still the one that was opened, and still ends as
it was written; if not, the run stops before the step. What a ledger cannot see: an older copy put in its place between
two runs, or whole lines cut off its end (unless the weights are later ones); a forger, who can compute seals too; on
Windows, a second run at the same time.

Both files are for their owner alone (0600). ``run.ledger.key`` beside ``run.ledger`` is a random key, under which the
ledger holds a hash of the data: without the key nobody can confirm a guess of the data by it. Never publish the key.
Without it a run cannot be gone on with, because nobody can tell whether the data are the same; what it released and
what it cost can still be read.
"""

import errno
import json
import os
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any, Self

import numpy as np
from torch import Tensor

from dpzo.account import NOT_PRIVATE, SCHEMA, Account, account_of, read, refuse_unsound, sealed
from dpzo.errors import Refusal
from dpzo.files import sync_folder, write_whole
from dpzo.fingerprint import fingerprint, keyed
from dpzo.plan import Plan
from dpzo.randomness import Streams
from dpzo.types import Data, Step

__all__ = ["Account", "Ledger", "read"]

_KEY = re.compile(rb"[0-9a-f]{64}\n")
_CHANGED = "The run stops here; put the file back and go on from it: what it had charged is spent."
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
        self._process, self._place = os.getpid(), self.path.absolute()
        self._seal: bytes | None = None  # of the last line; None until the run has begun and after a failed write
        self._end, self._size, self._last, self._in_step = 0, 0, b"", False
        try:
            _check_kind(self.path)
            self._file = FileIO(self.path, "r+", opener=lambda name, flags: os.open(name, flags | os.O_CREAT, 0o600))
            try:
                _lock(self._file)
                sync_folder(self.path.parent)
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
            "ledger": SCHEMA,
            "plan": plan.describe(),
            "public_seed": streams.public_seed,
            "private": streams.are_private,
            "weights": fingerprint(params),
        }
        named = fingerprint(data[np.arange(len(data))]) if self.data is None else self.data
        if not streams.are_private:
            told["NOT PRIVATE"] = NOT_PRIVATE
        self._check_open()  # before the position in the file is moved: a fork shares it
        self._file.seek(0)
        content = self._file.readall()
        *whole, torn = content.split(b"\n")
        if not whole:
            if not _TORN_HEADER.fullmatch(torn):
                raise Refusal(f"a ledger, or no file, at {self.path}", "something else", "Choose another path.")
            told["data"] = keyed(named, self._new_key())
            self._for_us_alone()
            self._seal, self._end, self._size, self._last = b"", 0, len(content), b""
            self.charged, self.known, self._in_step = 0, 0, False
            self._append(told, sync=True)
            return []
        account = account_of(whole, self.path)
        refuse_unsound(account, self.path)
        told["data"] = keyed(named, self._key())
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
        self._end, self._size, self._last = len(content) - len(torn), len(content), whole[-1] + b"\n"
        self._for_us_alone()
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
        try:
            there, ours = os.stat(self._place), os.fstat(self._file.fileno())
            came = "" if os.path.samestat(there, ours) else "another file"
        except OSError as error:
            came = error.strerror or "none"
        if came:
            raise Refusal(f"the ledger at {self.path} that this run began with", came, _CHANGED)

    def _check_end(self) -> None:
        # An older copy written over the file keeps its inode, so the last line is looked at too.
        self._file.seek(self._end - len(self._last))
        if os.fstat(self._file.fileno()).st_size != self._size or self._file.read(len(self._last)) != self._last:
            raise Refusal(f"{self.path} as this run has left it", "a file that others have changed", _CHANGED)

    def _append(self, told: dict[str, Any], *, sync: bool) -> None:
        self._check_open()
        if self._seal is None:
            raise Refusal("a run that has begun", "none, or one that broke off", "Begin again from the ledger.")
        text = json.dumps(told, sort_keys=True).encode()
        seal, self._seal = sealed(self._seal, text), None
        line = seal + b" " + text + b"\n"
        try:
            self._check_end()
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
        self._seal, self._end, self._last = seal, self._end + len(line), line
        self._size = self._end

    @property
    def _key_path(self) -> Path:
        return self._place.with_name(f"{self.path.name}.key")

    def _for_us_alone(self) -> None:
        for path in (self._place, self._key_path):
            with suppress(OSError):  # somebody else's file, that we may write to
                path.chmod(0o600)

    def _new_key(self) -> bytes:
        if self._key_path.exists():  # of a run that ended before its first line, or of a ledger that was removed
            self._key()
        key = secrets.token_bytes(32)
        write_whole(self._key_path, key.hex() + "\n", mode=0o600)
        return key

    def _key(self) -> bytes:
        try:
            _check_kind(self._key_path)
            text = self._key_path.read_bytes()
            came = "" if _KEY.fullmatch(text) else "something else"
        except OSError as error:
            text, came = b"", error.strerror or "none"
        if came:
            raise Refusal(
                f"the ledger's key at {self._key_path}",
                came,
                "Put it back beside the ledger. Without it nobody can tell whether the data are the ledger's: start a "
                "new ledger and add up what both runs cost; what this one cost can still be read.",
            )
        return bytes.fromhex(text.decode())


def _check_kind(path: Path) -> None:
    if path.exists() and not path.is_file():  # a device or a pipe keeps nothing, and reading one may never end
        raise OSError(errno.EINVAL, "not a file")


def _lock(file: FileIO) -> None:
    try:
        import fcntl
    except ImportError:  # on Windows
        return
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
