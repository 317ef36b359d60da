"""A C file as a loaded library, compiled once and kept in the user's cache.

It is loaded only if no other user could have put it there, and what is loaded is the very file that was looked at, not
whatever its name leads to by then. Where there is no compiler, no cache or another kind of system, there is no library,
and the caller does without.
"""

import ctypes
import os
import platform
import shutil
import subprocess
import tempfile
from hashlib import sha256
from pathlib import Path

import platformdirs

from dpzo.errors import Refusal
from dpzo.files import open_ours

_FLAGS = ("-std=c99", "-O3", "-ffp-contract=off", "-fPIC", "-shared")
_PATIENCE = 20.0  # seconds; a compiler takes a fifth of one
_DESCRIPTORS = Path("/proc/self/fd")  # files by the descriptors that this process has open, on Linux


def library(source: Path) -> ctypes.CDLL | None:
    """Return the library made of a C file, or None; compiles it when the cache has none of the same text."""
    if os.environ.get("DPZO_COMPILE") == "0" or os.name != "posix":
        return None
    try:
        built = _path(source)
        if not built.exists():
            _build(source, built)
        return _load(built)
    except (OSError, subprocess.SubprocessError, Refusal):
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
    os.close(open_ours(built.parent))
    with tempfile.TemporaryDirectory(dir=built.parent) as work:
        made = Path(work, built.name)
        command = [compiler, *_FLAGS, "-o", str(made), str(source)]
        subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=_PATIENCE)
        made.chmod(0o700)
        with made.open("rb") as file:
            os.fsync(file.fileno())
        # Two processes may be here at once: each puts a whole file in place, and the two are alike.
        made.replace(built)


def _load(built: Path) -> ctypes.CDLL:
    handle = open_ours(built)
    try:
        if _DESCRIPTORS.is_dir():
            loaded = ctypes.CDLL(str(_DESCRIPTORS / str(handle)))
            # Stays open for good: the loader would take the next file with this number for the same library.
            handle = -1
            return loaded
        with tempfile.TemporaryDirectory(dir=built.parent) as folder:
            copy = Path(folder, built.name)
            with open(handle, "rb", closefd=False) as file:
                copy.write_bytes(file.read())
            return ctypes.CDLL(str(copy))
    finally:
        if handle >= 0:
            os.close(handle)
