"""A C file as a loaded library, compiled once and kept in the user's cache.

It is loaded only if no other user could have put it there. Where there is no compiler, no cache or another kind of
system, there is no library, and the caller does without.
"""

import ctypes
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from hashlib import sha256
from pathlib import Path

import platformdirs

_FLAGS = ("-std=c99", "-O3", "-ffp-contract=off", "-fPIC", "-shared")
_PATIENCE = 20.0  # seconds; a compiler takes a fifth of one


def library(source: Path) -> ctypes.CDLL | None:
    """Return the library made of a C file, or None; compiles it when the cache has none of the same text."""
    if os.environ.get("DPZO_COMPILE") == "0" or os.name != "posix":
        return None
    try:
        built = _path(source)
        if not built.exists():
            _build(source, built)
        return ctypes.CDLL(str(built)) if _is_ours(built) else None
    except (OSError, subprocess.SubprocessError):
        return None


def _path(source: Path) -> Path:
    chosen = os.environ.get("DPZO_CACHE")
    root = Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("dpzo", appauthor=False)
    made_by = (platform.system(), platform.machine(), *platform.libc_ver(), *_FLAGS)
    digest = sha256("\0".join(made_by).encode() + source.read_bytes()).hexdigest()[:16]
    return root.resolve() / "kernels" / f"{source.stem}-{digest}.so"


def _build(source: Path, built: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        return
    built.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=built.parent) as work:
        made = Path(work, built.name)
        command = [compiler, *_FLAGS, "-o", str(made), str(source)]
        subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=_PATIENCE)
        made.chmod(0o700)
        with made.open("rb") as file:
            os.fsync(file.fileno())
        # Two processes may be here at once: each puts a whole file in place, and the two are alike.
        made.replace(built)


def _is_ours(built: Path) -> bool:
    """Whether no other user, root apart, can have written the library or can change what its path leads to."""
    for path in (built, built.parent):
        about = path.lstat()
        kind = stat.S_ISREG if path == built else stat.S_ISDIR
        if not kind(about.st_mode) or about.st_uid != os.geteuid() or about.st_mode & 0o022:
            return False
    # A folder further up that all may write leads where they like, unless its sticky bit keeps its entries theirs.
    above = (path.stat().st_mode for path in built.parent.parents)
    return all(not mode & stat.S_IWOTH or mode & stat.S_ISVTX for mode in above)
