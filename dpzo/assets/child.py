"""Run one long command beside us with a line of progress, and keep what it says in case it fails."""

from __future__ import annotations

import errno
import itertools
import os
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

_FULL = re.compile(r"No space left on device|not enough space on the disk|Disk quota exceeded")
_CREDENTIALS = re.compile(r"(?<=//)[^/@\s]+@")


class ChildError(Exception):
    """The command ended badly; `output` is all it said, `last_line` the line to show."""

    def __init__(self, output: str, status: int) -> None:
        # An index's address can hold a password; what is shown must not.
        self.output = _CREDENTIALS.sub("", output)
        lines = [line.strip() for line in self.output.splitlines() if line.strip()]
        # When pip itself breaks, its "ERROR: Exception:" comes before the traceback whose last line says more.
        errors = [line for line in lines if line.startswith("ERROR:") and line != "ERROR: Exception:"]
        self.last_line = (errors or lines or [f"nothing was said; it ended with status {status}"])[-1]
        super().__init__(self.last_line)


def run(
    command: Sequence[str],
    *,
    work: Path,
    label: str,
    environment: Mapping[str, str] = {},
    size: Callable[[], int] | None = None,
    total: int | None = None,
) -> None:
    """Run `command` in the folder `work`; `size()` of `total` bytes are done, or a clock runs without a size.

    Raises ChildError, or OSError(ENOSPC) where the command found the disk full.
    """
    # A bar is drawn on terminals only (disable=None): a log file wants lines, and our caller prints those.
    bar = tqdm(
        desc=label if size else f"  {label}",
        total=total,
        unit="B",
        unit_scale=True,
        leave=False,
        disable=None,
        bar_format=None if size else "{desc} {elapsed}",
    )
    # What it says is kept in memory: on a full disk a log would lose the very line that says so.
    with (
        bar,
        subprocess.Popen(
            command,
            cwd=work,
            env={**os.environ, **environment, "PYTHONIOENCODING": "utf-8"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        ) as child,
    ):
        try:
            for turn in itertools.cycle("|/-\\"):
                try:
                    output, _ = child.communicate(timeout=0.1)
                    break
                except subprocess.TimeoutExpired:
                    if size is None:
                        bar.set_description_str(f"{turn} {label}")
                    else:
                        bar.update(max(0, size() - bar.n))
        except BaseException:
            # Ctrl-C reaches us first: without this the child would go on writing into a folder being removed.
            child.kill()
            raise
    if child.returncode != 0:
        if _FULL.search(output):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise ChildError(output, child.returncode)
