"""What the programs of this folder share: options are checked before anything runs, and a refusal is a line."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from dpzo import Refusal


@contextmanager
def refusals() -> Iterator[None]:
    """Tell a refusal on the standard error and end with the exit code 2."""
    try:
        yield
    except Refusal as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        raise typer.Exit(2) from None


def at_least(least: int, **options: int) -> None:
    """Refuse a smaller value of any of the options."""
    for name, value in options.items():
        if value < least:
            raise Refusal(f"--{name} of {least} or more", value, f"Write --{name} {least}, or see --help.")


def folder(out: Path) -> Path:
    """Return ``out``, made if it was not there; refuse what cannot be one."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refusal("a folder that can be written to", f"{out}: {error.strerror}", "Give another --out.") from error
    return out
