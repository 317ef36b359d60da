"""Files are written whole, over no planted link, and read only where nobody else can have put them."""

import os
import secrets
import stat
from pathlib import Path

import pytest

from dpzo import Refusal, files, report
from dpzo.files import open_ours, write_whole

POSIX = pytest.mark.skipif(os.name != "posix", reason="a thing of POSIX systems")


def test_a_file_is_written_whole_in_utf_8_whatever_the_locale(tmp_path):
    path = tmp_path / "new" / "folder" / "a.md"
    for content in ("ε = 1,\n± é\n", b"\x00\r\n", ""):
        write_whole(path, content)
        assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode("utf-8"))
        assert [p.name for p in path.parent.iterdir()] == ["a.md"]


def test_half_a_character_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.md"
    write_whole(path, "before")
    with pytest.raises(Refusal, match="half of a surrogate pair"):
        write_whole(path, "after \ud800")
    assert path.read_text() == "before"


@pytest.mark.parametrize("step", ["fsync", "replace", "write"])
def test_a_disk_that_fails_leaves_what_was_there_and_nothing_beside_it(tmp_path, monkeypatch, step):
    path = tmp_path / "a.md"
    write_whole(path, "before")

    def fails(*args, **more):
        raise OSError(28, "No space left on device")

    if step == "fsync":
        monkeypatch.setattr(os, "fsync", fails)
    elif step == "replace":
        monkeypatch.setattr(Path, "replace", fails)
    else:
        monkeypatch.setattr(os, "fdopen", fails)
    with pytest.raises(Refusal, match="No space left"):
        write_whole(path, "after")
    monkeypatch.undo()
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.md", "before")]


@POSIX
@pytest.mark.parametrize("kind", ["link", "file", "folder"])
def test_nothing_planted_at_the_temporary_name_is_followed_or_overwritten(tmp_path, monkeypatch, kind):
    """Kills: O_CREAT without O_EXCL, which writes to wherever a planted link leads."""
    victim, path = tmp_path / "victim", tmp_path / "privacy.md"
    victim.write_text("mine")
    monkeypatch.setattr(secrets, "token_hex", lambda count: "foreseen")
    planted = tmp_path / ".foreseen.part"
    if kind == "link":
        planted.symlink_to(victim)
    elif kind == "file":
        planted.write_text("theirs")
    else:
        planted.mkdir()
    with pytest.raises(Refusal, match="File exists"):
        write_whole(path, "statement")
    assert victim.read_text() == "mine"
    assert not path.exists()
    assert planted.is_symlink() or kind != "link"


@POSIX
def test_the_temporary_name_cannot_be_foreseen(tmp_path, monkeypatch):
    """Kills: a name of the process's number, at which links can be planted for all numbers."""
    names, opened = set(), os.open

    def noted(path, flags, *args, **more):
        if str(path).endswith(".part"):
            names.add(Path(path).name)
            assert flags & os.O_EXCL
            assert flags & os.O_NOFOLLOW
        return opened(path, flags, *args, **more)

    monkeypatch.setattr(os, "open", noted)
    for _ in range(3):
        write_whole(tmp_path / "a", "x")
    assert len(names) == 3


@POSIX
def test_a_link_in_the_files_own_place_is_replaced_and_not_followed(tmp_path):
    victim, path = tmp_path / "victim", tmp_path / "privacy.md"
    victim.write_text("mine")
    path.symlink_to(victim)
    write_whole(path, "statement")
    assert (victim.read_text(), path.read_text(), path.is_symlink()) == ("mine", "statement", False)


@POSIX
@pytest.mark.parametrize(("umask", "mode", "wanted"), [(0, 0o666, 0o666), (0o22, 0o666, 0o644), (0, 0o600, 0o600)])
def test_modes(tmp_path, umask, mode, wanted):
    before = os.umask(umask)
    try:
        write_whole(tmp_path / "a", "x", mode=mode)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == wanted


def test_every_writer_uses_it():
    """Kills: a second way to write, with a planted link in its way."""
    assert report.write_whole is write_whole
    root = Path(files.__file__).parent
    others = {
        "files.py",
        "ledger.py",
        "cache.py",
        "source.py",
        "compiled.py",
    }  # append, or work in folders of their own
    for path in root.rglob("*.py"):
        text = path.read_text("utf-8")
        if path.name not in others:
            assert not [way for way in (".write_text(", ".write_bytes(", '"w"', '"wb"', "O_CREAT") if way in text], path


# Who could have put a file where it is


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A file of this user's in two folders of its own."""
    monkeypatch.setattr(files, "_is_private", lambda group: False)
    folder = tmp_path / "above" / "folder"
    folder.mkdir(parents=True)
    folder.chmod(0o700), folder.parent.chmod(0o755)
    path = folder / "file"
    path.write_text("mine")
    path.chmod(0o600)
    return path


def is_ours(path):
    try:
        handle = open_ours(path)
    except (OSError, Refusal) as error:
        return error if isinstance(error, Refusal) else None
    with open(handle) as file:
        assert file.read() == "mine"
    return True


@POSIX
@pytest.mark.parametrize("mode", [0o600, 0o644, 0o755, 0o400])
def test_a_file_that_others_may_only_read_is_ours(place, mode):
    place.chmod(mode)
    assert is_ours(place) is True


MODES = [(0o620, 0o700, 0o755), (0o602, 0o700, 0o755), (0o600, 0o770, 0o755), (0o600, 0o702, 0o755)]
MODES += [(0o600, 0o700, 0o775), (0o600, 0o700, 0o757), (0o1602, 0o700, 0o755), (0o620, 0o1777, 0o755)]


@POSIX
@pytest.mark.parametrize("modes", MODES, ids=lambda modes: " ".join(map(oct, modes)))
def test_what_others_can_write_is_not(place, modes):
    for path, mode in zip((place, place.parent, place.parent.parent), modes, strict=True):
        path.chmod(mode)
    refusal = is_ours(place)
    assert "can be written by other users" in str(refusal)
    assert "DPZO_CACHE" in str(refusal)


@POSIX
@pytest.mark.parametrize("mode", [0o1777, 0o1775, 0o1757])
def test_a_sticky_folder_is_no_danger_to_what_is_ours_in_it(place, mode):
    place.parent.chmod(mode), place.parent.parent.chmod(mode)
    assert is_ours(place) is True


@POSIX
@pytest.mark.parametrize("level", [0, 1, 2])
def test_what_belongs_to_another_is_not(place, level, monkeypatch):
    theirs = [place, place.parent, place.parent.parent][level]
    if os.geteuid() == 0:
        os.chown(theirs, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: place.stat().st_uid + 1)
    assert "belongs to another user" in str(is_ours(place))


@POSIX
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_another_in_a_sticky_folder_is_not(place):
    place.parent.chmod(0o1777)
    os.chown(place, 12345, -1)
    assert "belongs to another user" in str(is_ours(place))


@POSIX
@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_link_on_the_way_is_not_followed(place, level):
    path = [place, place.parent, place.parent.parent][level]
    path.rename(path.with_name("real"))
    path.symlink_to(path.with_name("real"))
    assert is_ours(place) is None


@POSIX
def test_a_pipe_is_no_file_and_keeps_nobody_waiting(place):
    place.unlink()
    os.mkfifo(place, 0o600)
    assert is_ours(place) is None


@POSIX
def test_a_group_with_nobody_else_in_it_is_no_other_user(place, monkeypatch):
    place.chmod(0o660), place.parent.chmod(0o770)
    assert "can be written" in str(is_ours(place))
    monkeypatch.setattr(files, "_is_private", lambda group: group == place.stat().st_gid)
    assert is_ours(place) is True


@POSIX
@pytest.mark.parametrize(
    ("name", "gid", "members", "private"),
    [("me", 7, [], True), ("me", 7, ["me"], True), ("me", 7, ["me", "you"], False), ("staff", 7, [], False)],
)
def test_which_group_is_private(monkeypatch, name, gid, members, private):
    import grp
    import pwd

    monkeypatch.setattr(pwd, "getpwuid", lambda uid: pwd.struct_passwd(("me", "x", uid, 7, "", "/", "/bin/sh")))
    monkeypatch.setattr(grp, "getgrgid", lambda group: grp.struct_group((name, "x", gid, members)))
    assert files._is_private.__wrapped__(gid) is private


@POSIX
def test_the_file_that_was_opened_is_the_one_that_was_looked_at(place, monkeypatch):
    """Kills: a look at the name, then an opening of the name: what is swapped in between is taken."""
    looked = files._check

    def swapped_after(about, at):
        looked(about, at)
        if at == place:
            place.with_name("theirs").write_text("theirs")
            place.with_name("theirs").replace(place)

    monkeypatch.setattr(files, "_check", swapped_after)
    assert is_ours(place) is True
    assert place.read_text() == "theirs"
