"""The compiled kernel: the reference's bits or no kernel, and never a library that others could have put there."""

import ctypes
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from dpzo import files
from dpzo.kernels import compiled, philox
from dpzo.kernels.compiled import library

CC = shutil.which("cc")
SOURCE = Path(philox.__file__).with_suffix(".c")
pytestmark = pytest.mark.skipif(CC is None or os.name != "posix", reason="no C compiler")
WORDS = st.integers(0, 2**64 - 1)
POISON = '#include <stdio.h>\n__attribute__((constructor)) void f(void) { fclose(fopen("%s", "w")); }\n'


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DPZO_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("DPZO_COMPILE", raising=False)
        return philox._kernels(library(SOURCE))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and a process that has not looked into it yet."""
    monkeypatch.setenv("DPZO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DPZO_COMPILE", raising=False)
    monkeypatch.setattr(philox, "_found", [])
    return tmp_path / "cache" / "kernels"


def normals(start, count, keys, stream):
    return philox.standard_normals(start, count, keys=keys, stream=stream, device="cpu")


def both(start, count, keys, stream, kernels):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(philox, "_found", [None])
        expected = normals(start, count, keys, stream)
        patch.setattr(philox, "_found", [kernels])
        return expected, normals(start, count, keys, stream)


@given(st.integers(0, 2**62), st.integers(1, 1000), st.lists(WORDS, min_size=1, max_size=3), WORDS)
@example(2**32 - 100, 333, [0, 2**64 - 1], 2**64 - 1)
@example(0, 64, [7], 0)
@example(0, 65, [7], 0)
def test_the_arguments_are_the_same_bits(kernels, first, count, keys, stream):
    """Kills: a counter of 32 bits; a key or a stream cut to 32; a last lane left out; another round constant."""
    asked = first, count, keys, stream, "cpu"
    assert torch.equal(kernels.arguments(*asked), philox._arguments(*asked))


@given(st.integers(0, 2**63), st.integers(1, 1000), st.lists(WORDS, min_size=1, max_size=3), WORDS)
@example(4 * 2**32 - 7, 50, [1, 2], 3)
@example(3, 1, [1], 3)
def test_the_normals_are_the_same_bits(kernels, start, count, keys, stream):
    """Kills: the pairs or the keys exchanged; an odd start that is rounded."""
    expected, got = both(start, count, keys, stream, kernels)
    assert got.shape == (len(keys), count)
    assert torch.equal(expected, got)


def test_a_long_request_is_the_same_bits(kernels):
    expected, got = both(4 * 2**32 - 2**17 - 3, 2**18, [5, 6], 9, kernels)
    assert torch.equal(expected, got)


def asked(values=philox._WORTH):
    """What a request finds, and whether its bits are the reference's."""
    got, found = normals(3, values, [5], 9), list(philox._found)
    philox._found[:] = [None]
    assert torch.equal(got, normals(3, values, [5], 9))
    return found


def test_a_large_request_compiles_once_and_a_small_one_never(cache):
    assert asked(philox._WORTH - 1) == []
    assert not cache.exists()
    philox._found.clear()
    assert asked()[0] is not None
    (built,) = cache.iterdir()
    assert stat.S_IMODE(cache.stat().st_mode) == stat.S_IMODE(built.stat().st_mode) == 0o700
    before = built.stat()
    philox._found.clear()
    assert asked()[0] is not None
    assert (built.stat().st_mtime_ns, built.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def compiler(tmp_path, monkeypatch, script):
    """A ``cc`` of our own on the path, before the real one."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "cc").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "cc").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


# A compiler of another text: its last two arguments are the output and the source, which it only reads.
OTHERWISE = f"""for last; do out=$source; source=$last; done
sed '%s' "$source" > "$out.c" && exec {CC} -std=c99 -O3 -fPIC -shared -o "$out" "$out.c"
"""
SPOILT = {
    "fails": "exit 1",
    "makes nothing": "exit 0",
    "makes rubbish": 'while [ "$1" != -o ]; do shift; done; echo rubbish > "$2"',
    "never ends": "exec sleep 60",
    "another round constant": OTHERWISE % "s/0xBB67AE85u/0xBB67AE87u/",
    "a warped product": OTHERWISE % r"s/radius.n + i. . sine/1.0000001f * &/",
}


@pytest.mark.parametrize("script", SPOILT.values(), ids=SPOILT)
def test_a_compiler_that_cannot_be_relied_on_is_done_without(cache, tmp_path, monkeypatch, script):
    """Kills: an error let through; a library used unchecked; a compiler waited for without end."""
    compiler(tmp_path, monkeypatch, script)
    if "sleep" in script:
        monkeypatch.setattr(compiled, "_PATIENCE", 0.5)
    assert asked() == [None]
    assert bool(list(cache.glob("*.so"))) == ("-o" in script), "the spoilt library is there, and not used"
    assert not [path for path in cache.iterdir() if path.is_dir()], "a working folder was left"


def test_the_wrapper_itself_is_a_good_compiler(cache, tmp_path, monkeypatch):
    """Without this, the two wrong libraries above might be refused for the wrapper's sake."""
    compiler(tmp_path, monkeypatch, OTHERWISE % "s/a/a/")
    assert asked()[0] is not None


def test_no_compiler_and_no_wish_for_one(cache, monkeypatch):
    monkeypatch.setenv("DPZO_COMPILE", "0")
    assert asked() == [None]
    assert not cache.exists()
    monkeypatch.delenv("DPZO_COMPILE")
    monkeypatch.setenv("PATH", "/nowhere")
    philox._found.clear()
    assert asked() == [None]


def test_a_cache_that_cannot_be_made_is_done_without(tmp_path, cache):
    cache.parent.write_text("a file where a folder should be")
    assert asked() == [None]


def as_ours(built):
    """Changes nothing: the library that may be loaded."""


def link(path):
    real = path.with_name("real")
    path.rename(real)
    path.symlink_to(real)


OPEN = {
    "file, by the group": lambda built: built.chmod(0o770),
    "file, by all": lambda built: built.chmod(0o702),
    "folder, by the group": lambda built: built.parent.chmod(0o770),
    "folder, by all": lambda built: built.parent.chmod(0o702),
    "folder above": lambda built: built.parent.parent.chmod(0o777),
    "file, by a link": link,
    "folder, by a link": lambda built: link(built.parent),
}


@pytest.mark.parametrize("spoil", [as_ours, *OPEN.values()], ids=["nobody else", *OPEN])
def test_a_library_that_others_could_have_put_there_is_never_loaded(cache, tmp_path, monkeypatch, spoil):
    """Kills: each of the checks left out; one that is made after loading, when the library's code has run."""
    built, mark, poison = compiled._path(SOURCE), tmp_path / "it ran", tmp_path / "poison.c"
    cache.mkdir(parents=True, mode=0o700)
    poison.write_text(POISON % mark)
    subprocess.run([CC, "-shared", "-fPIC", "-o", built, poison], check=True)
    built.chmod(0o700)
    spoil(built)
    monkeypatch.setattr(files, "_is_private", lambda group: False)
    loaded = library(SOURCE)
    assert mark.exists() == (loaded is not None) == (spoil is as_ours)


@pytest.mark.parametrize("of", ["file", "folder", "folder above", "folder far above"])
def test_a_library_of_another_user_or_in_anothers_folder_is_never_loaded(cache, tmp_path, monkeypatch, of):
    """Kills: a look at the file and its folder alone: who owns a folder above puts there what they like."""
    root = tmp_path / "far" / "above"
    monkeypatch.setenv("DPZO_CACHE", str(root))
    assert library(SOURCE) is not None
    built = compiled._path(SOURCE)
    theirs = {"file": built, "folder": built.parent, "folder above": root, "folder far above": root.parent}[of]
    given_away(theirs, monkeypatch)
    assert library(SOURCE) is None
    assert not list(root.parent.glob("*.so"))


def given_away(path, monkeypatch):
    """``path`` belongs to another user: in truth where we may give things away, else to all that look."""
    if os.geteuid() == 0:
        os.chown(path, 12345, -1)
        return
    inode, look = path.stat().st_ino, os.fstat

    def fstat(handle):
        about = look(handle)
        return about if about.st_ino != inode else os.stat_result([*about[:4], about.st_uid + 1, *about[5:]])

    monkeypatch.setattr(os, "fstat", fstat)


def poisoned(path, tmp_path):
    """Put a library there whose code leaves a mark when it is loaded; return the mark."""
    mark, poison, made = tmp_path / "it ran", tmp_path / "poison.c", tmp_path / "poison.so"
    poison.write_text(POISON % mark)
    subprocess.run([CC, "-shared", "-fPIC", "-o", made, poison], check=True)
    made.chmod(0o700)
    made.replace(path)
    return mark


@pytest.mark.parametrize("descriptors", [True, False], ids=["by descriptor", "by a private copy"])
def test_what_is_loaded_is_what_was_looked_at_whoever_swaps_the_file_in_between(
    cache, tmp_path, monkeypatch, descriptors
):
    """Kills: a library that is checked by its name and then loaded by its name (run below)."""
    assert library(SOURCE) is not None
    built = compiled._path(SOURCE)
    if not descriptors:
        monkeypatch.setattr(compiled, "_DESCRIPTORS", tmp_path / "none")
    elif not compiled._DESCRIPTORS.is_dir():
        pytest.skip("no /proc")
    looked, marks = compiled.open_ours, []

    def swapped_after(path):
        handle = looked(path)
        if path == built:
            marks.append(poisoned(built, tmp_path))
        return handle

    monkeypatch.setattr(compiled, "open_ours", swapped_after)
    assert philox._same_bits(philox._kernels(library(SOURCE)))
    assert [mark.exists() for mark in marks] == [False]
    ctypes.CDLL(str(built))
    assert marks[0].exists(), "the swapped file would have been seen"


def test_a_second_library_is_not_taken_for_the_first(cache, tmp_path):
    """Kills: a descriptor that is closed, whose number then names another file to a loader that goes by names."""
    assert library(SOURCE) is not None
    for number in range(3):
        other = tmp_path / f"other{number}.c"
        other.write_text(f"int answer(void) {{ return {number}; }}\n")
        assert library(other).answer() == number


def test_a_sticky_folder_above_is_no_danger(cache):
    assert library(SOURCE) is not None
    cache.parent.chmod(0o1777)
    assert library(SOURCE) is not None


def test_another_text_is_another_library(cache, tmp_path):
    other = tmp_path / SOURCE.name
    other.write_text(SOURCE.read_text("utf-8").replace("0xBB67AE85u", "0xBB67AE87u"), "utf-8")
    assert not philox._same_bits(philox._kernels(library(other)))
    assert philox._same_bits(philox._kernels(library(SOURCE)))


ALONE = "import runpy, sys, pathlib; print(runpy.run_path(sys.argv[1])['library'](pathlib.Path(sys.argv[2])) is None)"


def test_processes_at_once_all_get_a_whole_library(cache, tmp_path, monkeypatch):
    """Kills: a compiler that writes to the final name; one working name for all."""
    compiler(tmp_path, monkeypatch, f'echo >> {tmp_path}/runs; sleep 1; exec {CC} "$@"')
    command = [sys.executable, "-c", ALONE, compiled.__file__, str(SOURCE)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    names = {process.communicate(timeout=60)[0].strip() for process in processes}
    (built,) = cache.iterdir()
    assert names == {"False"}
    assert built == compiled._path(SOURCE)
    assert len((tmp_path / "runs").read_text()) > 1, "they did not meet"
    assert philox._same_bits(philox._kernels(library(SOURCE)))
