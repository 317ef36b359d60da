"""Commands run beside us: what they say, how they end, and what is left of them."""

import errno
import os
import sys

import pytest

from dpzo.assets import child
from dpzo.assets.convert import smollm2_to_safetensors
from dpzo.errors import Refusal


def test_a_disk_that_fills_up_under_a_child(tmp_path):
    command = [sys.executable, "-c", f"raise OSError({errno.ENOSPC}, 'No space left on device')"]
    with pytest.raises(OSError, match="No space left") as error:
        child.run(command, work=tmp_path, label="toy")
    assert error.value.errno == errno.ENOSPC


def test_a_gguf_that_cannot_be_converted(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    out.mkdir()
    (raw / "broken.gguf").write_bytes(b"GGUF")
    with pytest.raises(Refusal, match=r"broken\.gguf turned into safetensors") as refusal:
        smollm2_to_safetensors(raw, out)
    assert "\n" not in refusal.value.came
    assert refusal.value.__suppress_context__


def test_a_talkative_child(tmp_path):
    script = "import sys; sys.stdout.write('é\\n' * 200_000); sys.exit('at last')"
    with pytest.raises(child.ChildError, match="at last") as error:
        child.run([sys.executable, "-c", script], work=tmp_path, label="toy")
    assert error.value.output.count("é") == 200_000


def test_an_interrupt_ends_the_child_too(tmp_path):
    script = "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(60)"

    def size() -> int:
        if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
            raise KeyboardInterrupt
        return 0

    with pytest.raises(KeyboardInterrupt):
        child.run([sys.executable, "-c", script], work=tmp_path, label="toy", size=size, total=1)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_the_line_that_is_shown_says_why_and_holds_no_password():
    error = child.ChildError("warning\nERROR: 403 at https://me:secret@index.example/simple\nnotice\n", 1)
    assert error.last_line == "ERROR: 403 at https://index.example/simple"
    crash = child.ChildError("ERROR: Exception:\nTraceback (most recent call last):\n  File x\nKeyError: 1\n", 2)
    assert crash.last_line == "KeyError: 1"
    assert child.ChildError("", -9).last_line == "nothing was said; it ended with status -9"
