"""The experiments need the library and nothing else of this repository."""

import subprocess
import sys
from pathlib import Path

import synthetic

ROOM = Path(synthetic.__file__).parent


def test_every_module_is_imported_without_the_other_rooms(tmp_path):
    """Kills: an import of ``reproduce``, at the top or through another module."""
    names = sorted(f"synthetic.{path.stem}" for path in ROOM.glob("*.py") if path.stem != "__init__")
    assert "synthetic.convergence" in names
    blocked = "".join(f"sys.modules[{room!r}] = None\n" for room in ("reproduce", "book", "tests"))
    script = f"import sys\nsys.path.insert(0, {str(ROOM.parent)!r})\n{blocked}"
    script += "".join(f"import {name}\n" for name in names)
    told = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
