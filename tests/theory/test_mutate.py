"""The mutants that tests/theory/mutate.py tries are Python, each is one change, and no reason outlives its mutant."""

import ast

import pytest
import yaml

from tests.theory.mutate import HERE, ROOT, TESTS, mutants, mutated, named

SOURCES = {module: (ROOT / "dpzo/theory" / f"{module}.py").read_text("utf-8") for module in TESTS}


def test_every_module_of_the_theory_is_covered():
    modules = {path.stem for path in (ROOT / "dpzo/theory").glob("*.py")} - {"__init__"}
    assert modules <= set(TESTS)
    assert all((HERE.parent / f"{test}.py").exists() for tests in TESTS.values() for test in tests)


@pytest.mark.parametrize("module", SOURCES)
def test_mutants_are_python_and_differ(module):
    source = SOURCES[module]
    found = list(mutants(source))
    assert len(found) > 20
    for m in found:
        assert ast.dump(ast.parse(mutated(source, m))) != ast.dump(ast.parse(source))


def test_each_kind_of_change():
    source = 'def f(x: int = 3) -> float:\n    """No 4."""\n    return max(σ, 2.0) * x - 5 if not x < 1 else f"{6}"\n'
    assert {str(m) for m in mutants(source)} == {
        "3  ->  4", "max  ->  min", "2.0  ->  2.2", "5  ->  6", "1  ->  2", "not x < 1  ->  (x < 1)",
        "x < 1  ->  (x) >= (1)", "max(σ, 2.0) * x - 5  ->  (-(5))",
        "max(σ, 2.0) * x  ->  (max(σ, 2.0))", "max(σ, 2.0) * x  ->  (x)",
    }  # fmt: skip


def test_reasons_are_of_mutants_that_exist():
    told = yaml.safe_load((HERE.parent / "survivors.yml").read_text("utf-8"))
    for module, reasons in told.items():
        assert set(reasons) <= {named(SOURCES[module], m) for m in mutants(SOURCES[module])}
