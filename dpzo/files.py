"""Files that are whole or not there, and files that nobody else can have put where they are."""

import os
import secrets
import stat
from contextlib import suppress
from functools import cache
from pathlib import Path

from dpzo.errors import Refusal

_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_BINARY = getattr(os, "O_BINARY", 0)  # Windows would write \r\n


def write_whole(path: Path, content: str | bytes, *, mode: int = 0o666) -> None:
    """Put ``content`` at ``path`` in one move, so that no reader and no crash sees half of it; texts are UTF-8.

    It is written under a name that nobody can foresee and that no link can be planted at, beside its place.

    Raises:
        Refusal: a place that cannot be written to, or half a character.
    """
    try:
        data = content.encode("utf-8") if isinstance(content, str) else content
    except UnicodeEncodeError:
        raise Refusal(f"whole characters for {path}", "half of a surrogate pair", "Mend the text.") from None
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOFOLLOW | _BINARY, mode)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise Refusal(f"a file that can be written at {path}", error.strerror, "Choose another folder.") from error


def sync_folder(folder: Path) -> None:
    """Write a folder's entries through to the disk."""
    if os.name == "posix":  # elsewhere a folder cannot be opened
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def open_ours(path: Path) -> int:
    """A descriptor, to read, of a file or folder that no user but this one and root can change or have put there.

    Each folder from the root on is opened inside the one before, and what was opened is what is looked at: its owner
    is this user or root, and nobody else may write to it. A folder that all may write to is no danger when its sticky
    bit keeps everyone's entries theirs. ``path`` is absolute and has no link on its way.

    Raises:
        Refusal: somebody else's.
        OSError: nothing there, or a link.
    """
    handle, at = os.open(path.anchor, os.O_RDONLY), Path(path.anchor)
    try:
        _check(os.fstat(handle), at)
        names = path.parts[1:]
        for number, name in enumerate(names, 1):
            # O_PATH opens a folder that may be passed through and not listed; a pipe must not keep us waiting.
            last = number == len(names)
            flags = os.O_RDONLY | os.O_NONBLOCK if last else getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY
            inner, outer = os.open(name, flags | _NOFOLLOW | os.O_CLOEXEC, dir_fd=handle), handle
            handle, at = inner, at / name
            os.close(outer)
            _check(os.fstat(handle), at)
    except BaseException:
        os.close(handle)
        raise
    return handle


def _check(about: os.stat_result, at: Path) -> None:
    folder = stat.S_ISDIR(about.st_mode)
    if not folder and not stat.S_ISREG(about.st_mode):
        raise OSError("neither a file nor a folder")
    owners = {0, os.geteuid()} | (_unmapped() if folder else frozenset())
    others = stat.S_IWOTH | (0 if _is_private(about.st_gid) else stat.S_IWGRP)
    sticky = folder and about.st_mode & stat.S_ISVTX
    if about.st_uid not in owners:
        came = "belongs to another user"
    elif about.st_mode & others and not sticky:
        came = "can be written by other users"
    else:
        return
    raise Refusal(
        "a file or folder that only you can change, and all folders above it", f"{at}, which {came}", _ELSEWHERE
    )


_ELSEWHERE = "Set DPZO_CACHE to a folder of yours, or take the others' right to write (chmod go-w)."


@cache
def _is_private(group: int) -> bool:
    """Whether a group is this user's own, as many systems make one for each user, with nobody else in it."""
    import grp
    import pwd

    with suppress(KeyError):
        me, members = pwd.getpwuid(os.geteuid()), grp.getgrgid(group)
        return members.gr_gid == me.pw_gid and members.gr_name == me.pw_name and set(members.gr_mem) <= {me.pw_name}
    return False


@cache
def _unmapped() -> frozenset[int]:
    """Whom root's folders seem to belong to inside a container that does not know root."""
    with suppress(OSError, ValueError):
        known = [line.split() for line in Path("/proc/self/uid_map").read_text("ascii").splitlines()]
        if not any(int(first) == 0 for first, _, _ in known):
            return frozenset({int(Path("/proc/sys/kernel/overflowuid").read_text("ascii"))})
    return frozenset()
