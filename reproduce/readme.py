"""Puts the committed table into the README, so that no number there is typed by hand."""

import sys
from pathlib import Path

# Run as a file, so that the folder above is not on the path by itself.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dpzo.files import write_whole

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- table2 -->\n", "<!-- /table2 -->\n"


def with_table(readme: str, table: str) -> str:
    """The README with ``table`` between its marks."""
    head, rest = readme.split(BEGIN)
    return head + BEGIN + table + rest[rest.index(END) :]


if __name__ == "__main__":
    path, table = ROOT / "README.md", (ROOT / "reproduce" / "results" / "table2.md").read_text("utf-8")
    write_whole(path, with_table(path.read_text("utf-8"), table))
    print(f"{path.name} now holds the table of reproduce/results/table2.md", file=sys.stderr)
