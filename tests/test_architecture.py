"""Who may import whom, and what no file of the library may do (architecture.md, Rooms and rule 3)."""

import ast
from pathlib import Path

import pytest

import dpzo

ROOT = Path(dpzo.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
EXPERIMENTS = sorted((ROOT.parent / "synthetic").glob("*.py"))
HIGH = {"algorithms", "train", "transcript", "models", "tasks", "assets", "cli", "integrations", "audit", "report"}
BASE = {"errors", "types", "parameters", "kernels", "memory", "records"}
MAY_IMPORT = dict.fromkeys(("directions", "mechanisms", "sampling", "stages", "theory", "parameters", "types"), BASE)
MAY_IMPORT |= {
    "kernels": {"kernels", "errors", "files"},
    "files": {"errors"},
    "errors": set(),
    "printing": set(),
    "memory": {"errors"},
    "randomness": BASE,
    "noise": BASE,
}
MAY_IMPORT |= {"sampling": BASE | {"sampling"}, "theory": BASE | {"theory", "stages"}, "mechanisms": BASE | {"noise"}}
MAY_IMPORT |= {"records": BASE, "independence": BASE}
MAY_NOT_IMPORT = {
    "guard": HIGH | {"ledger"},
    "checks": HIGH | {"ledger", "guard"},
    "masks": HIGH | {"plan", "walk"},
    "scores": HIGH | {"plan", "walk"},
    "walk": HIGH,
    "plan": HIGH,
    "accounting": HIGH,
    "estimators": HIGH,
    "averaging": HIGH,
    "algorithms": {"models", "tasks", "assets", "cli", "train", "audit"},
    "train": {"models", "tasks", "assets", "cli", "audit"},
    "transcript": {"models", "tasks", "assets", "cli", "audit"},
    "audit": {"models", "tasks", "assets", "cli"},
}
HEAVY_ROOMS = {"models", "tasks", "assets", "cli"}


def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def room(path):
    """The first name below dpzo: a file or a folder of it."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def type_checking_only(node):
    """The imports under ``if TYPE_CHECKING``, which never happen."""
    return {
        id(inner)
        for branch in ast.walk(node)
        if isinstance(branch, ast.If) and getattr(branch.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(branch)
    }


def imported(path):
    """Dotted names of all that a file imports, also inside functions."""
    node = tree(path)
    skipped = type_checking_only(node)
    for part in ast.walk(node):
        if id(part) in skipped:
            continue
        if isinstance(part, ast.Import):
            yield from (alias.name for alias in part.names)
        elif isinstance(part, ast.ImportFrom):
            assert part.level == 0, f"{path}: a relative import hides its room"
            if part.module == "dpzo":
                yield from (f"dpzo.{alias.name}" for alias in part.names)
            else:
                yield part.module


def rooms_imported(path):
    return {name.split(".")[1] for name in imported(path) if name.startswith("dpzo.")}


def calls(path):
    """Dotted names of all that a file calls or mentions: ``np.random.seed``."""
    return {ast.unparse(part) for part in ast.walk(tree(path)) if isinstance(part, ast.Attribute | ast.Name)}


BY_FILE = pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))


@BY_FILE
def test_rooms(path):
    if (name := room(path)) in MAY_IMPORT:
        assert rooms_imported(path) <= MAY_IMPORT[name]
    if name in MAY_NOT_IMPORT:
        assert not rooms_imported(path) & MAY_NOT_IMPORT[name]


@BY_FILE
def test_the_library_knows_nothing_of_what_uses_it(path):
    assert not {name.split(".")[0] for name in imported(path)} & {"synthetic", "reproduce", "tests", "book"}


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda p: p.name)
def test_the_experiments_know_nothing_of_what_uses_them(path):
    assert not {name.split(".")[0] for name in imported(path)} & {"reproduce", "tests", "book"}


@BY_FILE
def test_only_the_outer_rooms_know_transformers(path):
    if room(path) not in HEAVY_ROOMS and path.name != "command.py":  # a room's part of the command line
        heavy = {"transformers", "datasets", "gguf", "accelerate", "safetensors", "matplotlib", "typer", "rich"}
        assert not {name.split(".")[0] for name in imported(path)} & heavy


@BY_FILE
def test_nothing_seeds_or_reads_a_global_generator(path):
    forbidden = ("torch.manual_seed", "np.random.seed", "numpy.random.seed", "random.seed", "set_rng_state")
    assert not [name for name in calls(path) if name.endswith(forbidden)]
    # The guard alone looks at Python's, to see that it stands still.
    assert "random" not in imported(path) or path.name == "guard.py"
    drawing = {"torch.randn", "torch.rand", "torch.normal", "np.random.normal", "np.random.randn", "np.random.randint"}
    assert not calls(path) & drawing


@BY_FILE
def test_nothing_is_pickled(path):
    pickles = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    assert not {name.split(".")[0] for name in imported(path)} & pickles
    assert not calls(path) & {"torch.load", "torch.save", "np.load", "pandas.read_pickle"}


def calls_of(path, name):
    """The calls of any ``something.name(...)`` or ``name(...)`` in a file, each with its constant keywords."""
    for part in ast.walk(tree(path)):
        if isinstance(part, ast.Call) and ast.unparse(part.func).split(".")[-1] == name:
            yield part, {word.arg: getattr(word.value, "value", None) for word in part.keywords}


PROGRAMS = [*FILES, *EXPERIMENTS, *sorted((ROOT.parent / "reproduce").glob("*.py"))]
BY_PROGRAM = pytest.mark.parametrize("path", PROGRAMS, ids=lambda p: str(p.relative_to(ROOT.parent)))


@BY_PROGRAM
def test_no_code_comes_with_weights(path):
    for call, said in calls_of(path, "from_pretrained"):
        assert said.get("trust_remote_code", None) is False, ast.unparse(call)


@BY_PROGRAM
def test_texts_are_utf_8_in_every_locale(path):
    """Kills: a table that fails to be written, in a locale of another encoding, after all the runs it is made of."""
    for name, place in (("read_text", 0), ("write_text", 1), ("open", 3)):
        for call, said in calls_of(path, name):
            modes = [part.value for part in call.args if isinstance(part, ast.Constant) and isinstance(part.value, str)]
            binary = ast.unparse(call.func) in ("os.open", "archive.open") or any("b" in mode for mode in modes)
            if (name == "open" and binary) or (name == "read_text" and isinstance(call.func, ast.Name)):
                continue
            positional = call.args[place] if len(call.args) > place else None
            encoding = said.get("encoding", getattr(positional, "value", None))
            assert encoding in ("utf-8", "ascii"), ast.unparse(call)


def test_the_public_names():
    assert sorted(dpzo.__all__) == dpzo.__all__
    assert len(dpzo.__all__) <= 21
    assert all(hasattr(dpzo, name) for name in dpzo.__all__)


def test_an_algorithm_has_at_most_a_hundred_lines():
    for path in (ROOT / "algorithms").glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 100, path


def test_the_parser_sees_imports(tmp_path):
    path = tmp_path / "file.py"
    path.write_text(
        "import transformers.models\nfrom dpzo import train\n"
        "def f():\n    from dpzo.models.load import x\n    import torch; torch.manual_seed(1)\n"
        "if TYPE_CHECKING:\n    import pickle\n",
        encoding="utf-8",
    )
    assert list(imported(path)) == ["transformers.models", "dpzo.train", "dpzo.models.load", "torch"]
    assert rooms_imported(path) == {"train", "models"}
    assert "torch.manual_seed" in calls(path)
