"""What an experiment leaves behind: a Markdown table that says what made it, beside its picture."""

import shlex
import sys
from pathlib import Path

from dpzo.files import write_whole
from synthetic.provenance import provenance


def write(path: Path, text: str, seeds: str) -> None:
    """Write ``text`` to ``path``, then a line with the command, the seeds, the versions, the commit and the machine."""
    made = provenance()
    machine, versions = made["machine"], made["versions"]
    name = sys.modules["__main__"].__spec__.name if getattr(sys.modules["__main__"], "__spec__", None) else None
    command = ["python", *(["-m", name] if name else [_relative(sys.argv[0])]), *sys.argv[1:]]
    told = (
        f"Made by `{_whole(shlex.join(command))}`; seeds: {seeds}; commit {made['commit']}; "
        f"{machine['processor']}, {machine['threads']} of {machine['cores']} cores, {machine['system']}; "
        + ", ".join(f"{package} {versions[package]}" for package in ("python", "numpy", "scipy", "torch", "dpzo"))
        + "."
    )
    write_whole(path, f"{text.rstrip()}\n\n{told}\n")


def show(text: str) -> None:
    """Print ``text``, with a question mark for what the terminal's encoding has not."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding))


def table(columns: list[str], rows: list[list[str]]) -> str:
    """Markdown; all columns but the first are flushed right."""
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _whole(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")  # an option that was no text in the locale's encoding


def _relative(path: str) -> str:
    whole, here = Path(path).resolve(), Path(__file__).resolve().parents[1]
    return str(whole.relative_to(here)) if whole.is_relative_to(here) else whole.name
