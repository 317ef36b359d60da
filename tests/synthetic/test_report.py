"""A table is written in UTF-8 and printed as well as the terminal can, in every locale."""

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = r"""
import locale, sys
from pathlib import Path
from synthetic import report
assert locale.getpreferredencoding(False).lower() not in ("utf-8", "utf8"), "a locale of another encoding"
report.write(Path(sys.argv[1]), "1 \u00b1 \u03b5", "1")
report.show("1 \u00b1 \u03b5")
"""


def test_a_locale_of_another_encoding_costs_no_run(tmp_path: Path) -> None:
    """Kills: UnicodeEncodeError when a table is written or printed, after all the runs that it is made of."""
    other = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "OMP_NUM_THREADS": "1"}
    environment = os.environ | other | {"PYTHONPATH": os.pathsep.join(part for part in sys.path if part)}
    environment.pop("PYTHONIOENCODING", None)
    path = tmp_path / "été" / "table.md"
    command = [sys.executable, "-c", PROGRAM, str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, encoding="ascii", check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "1 ? ?"
    assert path.read_text("utf-8").startswith("1 ± ε\n\nMade by ")
