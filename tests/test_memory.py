"""Free memory is the machine's or the container's, whichever is less; what does not fit is told its size."""

import psutil
import pytest

from dpzo import Refusal, memory

GIB = 2**30


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A root folder to put control groups in, and 10 GiB."""
    monkeypatch.setattr(memory, "_ROOT", tmp_path)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 10 * GIB}))
    return tmp_path


def group(root, line, folder, names, limit, used, stat):
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(f"5:devices:/\n{line}\n")
    (root / folder).mkdir(parents=True)
    for name, value in zip((*names, "memory.stat"), (limit, used, stat), strict=True):
        (root / folder / name).write_text(f"{value}\n")


FIRST = ("4:memory:/a/b", "sys/fs/cgroup/memory/a/b", ("memory.limit_in_bytes", "memory.usage_in_bytes"))
SECOND = ("0::/a", "sys/fs/cgroup/a", ("memory.max", "memory.current"))


@pytest.mark.parametrize(("version", "inactive"), [(FIRST, "total_inactive_file"), (SECOND, "inactive_file")])
def test_a_container_may_have_less_than_the_machine(machine, version, inactive):
    """Kills: the limit alone, without what is used; cached files counted as used."""
    group(machine, *version, 3 * GIB, 2 * GIB, f"anon 1\n{inactive} {GIB // 2}")
    assert memory.free() == 3 * GIB // 2


@pytest.mark.parametrize("limit", ["max", 2**63 - 4096])
def test_a_container_without_a_limit(machine, limit):
    group(machine, *SECOND, limit, 2 * GIB, "anon 1")
    assert memory.free() == 10 * GIB


def test_no_container(machine):
    assert memory.free() == 10 * GIB
    memory.require(10 * GIB, "runs", "Take fewer.")


def test_what_does_not_fit_is_told_its_size(machine):
    with pytest.raises(Refusal) as told:
        memory.require(25 * GIB, "runs", "Take fewer.")
    assert str(told.value) == (
        "expected runs that fit in the 10.0 GiB of free memory; got runs that need 25.0 GiB. Take fewer."
    )
