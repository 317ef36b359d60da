"""Which changes of the theory no test notices: each number, operand and comparison changed once, the tests run on it.

    python tests/theory/mutate.py                         # all modules: hours
    python tests/theory/mutate.py --only stagewise --minutes 30
    python tests/theory/mutate.py --only rates:201-240    # some lines of a module

A number grows by a tenth (a whole one by 1), an operand of + - * / ** is left out, a comparison is turned round, min
and max are exchanged. A mutant is killed where a test of its module fails, or runs five times as long as it should.
Survivors that are no mistakes are told in survivors.yml, each with its reason; any other makes this program fail. It
works on a copy of the repository, in one process at a time, and is no part of the test suite.
"""

import argparse
import ast
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import cache_from_source
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

HERE = Path(__file__).resolve()
ROOT = HERE.parents[2]
TESTS = {
    "clipped": ["test_clipped", "test_region"],
    "noise": ["test_lemma_2_2"],
    "problem": ["test_rates", "test_region"],
    "quadratic": ["test_recursion", "test_quadratic", "test_average_gradient"],
    "rates": ["test_rates", "test_pl", "test_clipped"],
    "spectra": ["test_spectra"],
    "stagewise": ["test_stagewise"],
    "tradeoff": ["test_tradeoff"],
}
TURNED = {ast.Lt: ">=", ast.LtE: ">", ast.Gt: "<=", ast.GtE: "<", ast.Eq: "!=", ast.NotEq: "==",
          ast.Is: "is not", ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in"}  # fmt: skip
EXCHANGED = {"min": "max", "max": "min", "ceil": "floor", "floor": "ceil"}


class Mutant(NamedTuple):
    """``old`` at ``start`` (in bytes) of the source becomes ``new``."""

    line: int
    start: int
    old: str
    new: str

    def __str__(self) -> str:
        return f"{' '.join(self.old.split())}  ->  {' '.join(self.new.split())}"


def mutants(source: str) -> Iterator[Mutant]:
    """All changes of one source, in the order of its lines; messages and annotations are left alone."""
    raw = source.encode()
    starts = [0]
    for line in raw.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))

    def text(node: ast.expr) -> str:
        return raw[
            starts[node.lineno - 1] + node.col_offset : starts[node.end_lineno - 1] + node.end_col_offset
        ].decode()

    def change(node: ast.expr, new: str) -> Mutant:
        return Mutant(node.lineno, starts[node.lineno - 1] + node.col_offset, text(node), new)

    def walk(node: ast.AST) -> Iterator[Mutant]:
        match node:
            case ast.Raise() | ast.JoinedStr() | ast.Import() | ast.ImportFrom():
                return
            case ast.Constant(value=bool() | str() | None):
                return
            case ast.Constant(value=int() | float() as value):
                yield change(node, repr(value + 1) if isinstance(value, int) or value == 0 else f"{1.1 * value:.6g}")
            case ast.BinOp(left=left, op=op, right=right):
                if not (isinstance(op, ast.BitOr)):
                    if not isinstance(right, ast.Constant):
                        yield change(node, f"({text(left)})")
                    if not isinstance(left, ast.Constant) and not isinstance(op, ast.Pow):
                        yield change(node, f"(-({text(right)}))" if isinstance(op, ast.Sub) else f"({text(right)})")
            case ast.UnaryOp(op=ast.USub() | ast.Not(), operand=operand):
                yield change(node, f"({text(operand)})")
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                yield change(node, f"({text(left)}) {TURNED[type(op)]} ({text(right)})")
            case ast.BoolOp(values=values):
                word = " and " if isinstance(node.op, ast.And) else " or "
                for left_out in values:
                    kept = [f"({text(value)})" for value in values if value is not left_out]
                    yield change(node, f"({word.join(kept)})")
            case ast.Name(id=name) if name in EXCHANGED:
                yield change(node, EXCHANGED[name])
            case ast.Attribute(attr=name, value=value) if name in EXCHANGED:
                yield change(node, f"{text(value)}.{EXCHANGED[name]}")
        for field, child in ast.iter_fields(node):
            if field not in ("annotation", "returns"):
                for each in child if isinstance(child, list) else [child]:
                    if isinstance(each, ast.AST):
                        yield from walk(each)

    yield from sorted(walk(ast.parse(source)), key=lambda m: m.start)


def mutated(source: str, m: Mutant) -> str:
    """The source with that change."""
    raw = source.encode()
    return (raw[: m.start] + m.new.encode() + raw[m.start + len(m.old.encode()) :]).decode()


def named(source: str, m: Mutant) -> str:
    """How survivors.yml calls a mutant: its line and the change."""
    return f"{source.splitlines()[m.line - 1].strip()}  |  {m}"


def fails(files: list[str], limit: float, profile: str = "ci") -> bool:
    """Run these tests in a child process; whether one fails, or takes longer than ``limit`` seconds."""
    if not (child := os.fork()):
        os.environ["HYPOTHESIS_PROFILE"] = profile
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow and not statistical", *files])
        os._exit(min(int(code), 1))
    end = time.monotonic() + limit
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status != 0
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def copy_to(folder: Path) -> None:
    """What the tests of the theory need, in a new folder, which becomes the one that modules are imported from."""
    for part in ("dpzo", "tests", "synthetic"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    import dpzo  # noqa: F401  # what it imports is then there in all children
    import synthetic.bounds  # noqa: F401
    import tests.theory.moments  # noqa: F401

    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in ("dpzo", "synthetic", "tests"):
            source = Path(module.__file__).read_text("utf-8") if module.__file__ else ""
            if name.startswith("dpzo.theory") or re.search(r"^\s*(from|import) dpzo\.theory", source, re.M):
                del sys.modules[name]  # each child imports these anew


def pass_over(module: str, lines: range, deadline: float, known: dict[str, str]) -> int:
    """Try a module's mutants; tell of survivors, and return how many of them have no reason."""
    path = Path("dpzo/theory") / f"{module}.py"
    source = path.read_text("utf-8")
    files = [str(path)] + [f"tests/theory/{name}.py" for name in TESTS[module]]  # doctests first: they take no time
    began = time.monotonic()
    if fails(files, 900):
        sys.exit(f"{module}: its tests fail as they are")
    limit = 5 * (time.monotonic() - began) + 10
    tried = explained = unexplained = 0
    for m in mutants(source):
        if m.line not in lines:
            continue
        if time.monotonic() > deadline:
            print(f"{module}: out of time at line {m.line}")
            break
        path.write_text(mutated(source, m), "utf-8")
        Path(cache_from_source(str(path))).unlink(missing_ok=True)  # it tells versions apart by whole seconds
        tried += 1
        if not fails(files, limit, "few") and not fails(files, limit):
            reason = known.get(named(source, m))
            explained, unexplained = explained + bool(reason), unexplained + (not reason)
            print(f"{module}.py:{m.line}  {m}   [{reason or 'SURVIVES'}]", flush=True)
    path.write_text(source, "utf-8")
    print(f"{module}: {tried} mutants, {tried - explained - unexplained} killed, {explained} survive with a reason, "
          f"{unexplained} without", flush=True)  # fmt: skip
    return unexplained


def main() -> None:
    """Read the arguments and go over the modules."""
    parser = argparse.ArgumentParser(description="Mutants of dpzo/theory that no test notices.")
    parser.add_argument("--only", nargs="*", default=list(TESTS), help="modules, or module:line-line")
    parser.add_argument("--minutes", type=float, default=600.0)
    asked = parser.parse_args()
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # finding plugins takes longer than many tests
    deadline = time.monotonic() + 60 * asked.minutes
    known = yaml.safe_load((HERE.parent / "survivors.yml").read_text("utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        copy_to(Path(folder))
        left = 0
        for name in asked.only:
            module, _, span = name.partition(":")
            first, _, last = span.partition("-")
            lines = range(int(first or 1), int(last or first or 10**6) + 1)
            left += pass_over(module, lines, deadline, known.get(module) or {})
        os.chdir(ROOT)
    sys.exit(f"{left} mutants survive without a reason" if left else None)


if __name__ == "__main__":
    main()
