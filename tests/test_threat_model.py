"""The threat model names a test for each pitfall and names of the library: all of them must exist."""

import ast
import re
from pathlib import Path
from pkgutil import resolve_name

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "book" / "threat_model.md"


def rows(text):
    """(pitfall, why not, guards) for each line of the table under "Pitfalls"."""
    section = text.split("\n## Pitfalls\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    for line in lines:
        _, pitfall, reason, guard, _ = (cell.strip() for cell in re.split(r"(?<!\\)\|", line))
        yield pitfall, reason, re.findall(r"`([^`]+)`", guard)


def may_not_run(mark):
    """Only a system that lacks what is tested is a reason to skip."""
    return "xfail" in mark or ("skip" in mark and not mark.startswith("pytest.mark.skipif(not hasattr(os, "))


def missing(text, root=ROOT):
    """What is wrong with the table's guards."""
    for pitfall, reason, guards in rows(text):
        if not (pitfall and reason and guards):
            yield f"{pitfall}: something is empty"
        for guard in guards:
            file, _, name = guard.partition("::")
            path = root / file
            if not (path.is_file() and path.name.startswith("test_") and file.startswith("tests/")):
                yield f"{pitfall}: no test file {file}"
                continue
            tests = [part for part in ast.parse(path.read_text("utf-8")).body if isinstance(part, ast.FunctionDef)]
            (found,) = [part for part in tests if part.name == name] or [None]
            if found is None or not name.startswith("test_"):
                yield f"{pitfall}: no test {name} in {file}"
            elif any(may_not_run(ast.unparse(mark)) for mark in found.decorator_list):
                yield f"{pitfall}: {name} may not run"


def test_every_guard_exists():
    assert not list(missing(PAGE.read_text("utf-8")))


@pytest.mark.parametrize(
    ("row", "wrong"),
    [
        ("| p | r | `tests/test_a.py::test_there` |", False),
        ("| p | r | `tests/test_a.py::test_gone` |", True),
        ("| p | r | `tests/test_b.py::test_there` |", True),
        ("| p | r | `tests/test_a.py::helper` |", True),
        ("| p | r | `tests/test_a.py::test_skipped` |", True),
        ("| p | r | `tests/test_a.py` |", True),
        ("| p | r | |", True),
        ("| p |  | `tests/test_a.py::test_there` |", True),
        ("| p | r | `tests/test_a.py::test_there`, `tests/test_a.py::test_gone` |", True),
    ],
)
def test_a_guard_that_does_not_exist_is_seen(tmp_path, row, wrong):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_a.py").write_text(
        "def helper(): ...\ndef test_there(): ...\n@pytest.mark.skipif(True)\ndef test_skipped(): ...\n"
    )
    text = f"# T\n\n## Pitfalls\n\n| a | b | c |\n| --- | --- | --- |\n{row}\n\n## More\n\n| x | y |\n"
    assert bool(list(missing(text, tmp_path))) is wrong


@pytest.mark.parametrize(
    "words",
    [
        *("public seed", "Shuffling", "empty batch", "realised batch size", "not finite", "wrong unit", "relation"),
        *("clipped each", "goes on or tries again", "fork", "not charged", "Charged after", "Floating-point noise"),
        *("depend on the order", "coupled", "manual_seed", "delta without reason", "another sampler", "More steps"),
        *(
            "rolled back",
            "same shape",
            "rounded together",
            "precision of the exact",
            "promise of nothing",
            "small print",
        ),
        *("edited", "cannot be run", "author's words", "in the batch", "took no step"),
        *("rolled back", "same shape", "across records", ".train()", "max_norm", "Dropout", "no longer the model's"),
        *("spacing", "A record that fails", "batch's size", "parallel launch"),
    ],
)
def test_no_pitfall_is_forgotten(words):
    assert any(words in pitfall for pitfall, _, _ in rows(PAGE.read_text("utf-8")))


def test_what_the_page_says_of_the_library_is_there():
    """Names in code type that begin with dpzo, and files of the repository."""
    text = PAGE.read_text("utf-8")
    names = re.findall(r"`(dpzo\.[\w.]+)`", text)
    assert names
    for name in names:
        resolve_name(name)
    for file in re.findall(r"`(\w+\.md)`", text):
        assert (ROOT / file).is_file()
    security = (ROOT / "SECURITY.md").read_text("utf-8")
    for file in re.findall(r"\]\(([^)#]+)\)", security):
        assert (ROOT / file).is_file()
