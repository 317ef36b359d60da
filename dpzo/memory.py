"""How much memory is free, and the refusal of what would not fit."""

from collections.abc import Iterator
from pathlib import Path

import psutil

from dpzo.errors import Refusal

_ROOT = Path("/")
_FILES = {  # of a line's controllers in /proc/self/cgroup, for the second version and the first: folder, limit, use
    "": ("", "memory.max", "memory.current"),
    "memory": ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
}


def free() -> int:
    """Bytes that can still be had: the machine's, or those of this process's control group (a container) if fewer."""
    return min([int(psutil.virtual_memory().available), *_left_by_control_groups()])


def require(needed: float, what: str, todo: str) -> None:
    """Refuse ``what`` (a plural) if the ``needed`` bytes are not free.

    Raises:
        Refusal: it does not fit; how much it needs, and what there is.
    """
    if needed > (there := free()):
        raise Refusal(
            f"{what} that fit in the {there / 2**30:,.1f} GiB of free memory",
            f"{what} that need {needed / 2**30:,.1f} GiB",
            todo,
        )


def _left_by_control_groups() -> Iterator[int]:
    # A file that is not there, or a limit that is no number ("max"), limits nothing.
    try:
        mine = (_ROOT / "proc/self/cgroup").read_text("ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return
    for line in mine:
        _, controllers, path = line.split(":", 2)
        if controllers not in _FILES:
            continue
        kind, *names = _FILES[controllers]
        folder = _ROOT / "sys/fs/cgroup" / kind / path.lstrip("/")
        try:
            limit, used = (int((folder / name).read_text("ascii")) for name in names)
            stat = dict(entry.split() for entry in (folder / "memory.stat").read_text("ascii").splitlines())
        except (OSError, ValueError):
            continue
        # File pages that nobody has used of late count as used, but are given up when memory is asked for.
        yield max(limit - used + int(stat.get("total_inactive_file", stat.get("inactive_file", 0))), 0)
