"""A ledger whose seals fit and whose fields do not is refused, field by field, and never a traceback."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dpzo import Ledger, Refusal
from dpzo.account import SCHEMA, read, sealed
from tests.ledgers import DATA, PLAN, Counted, contents, put, streams

END = "checkpoint"  # has a line of each kind


def lines():
    return [json.loads(line.partition(b" ")[2]) for line in contents()[END].splitlines()]


def written(parts):
    """The lines of a forger, who computes seals too."""
    seal, out = b"", b""
    for part in parts:
        text = part if isinstance(part, bytes) else json.dumps(part, sort_keys=True).encode()
        seal = sealed(seal, text)
        out += seal + b" " + text + b"\n"
    return out


def places(part, at=()):
    """Where the fields of a line are, as paths, those within the plan too."""
    inner = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
    for name, value in inner:
        yield (*at, name)
        yield from places(value, (*at, name))


def changed(part, place, change):
    inner = part
    for name in place[:-1]:
        inner = inner[name]
    change(inner, place[-1])
    return part


PLACES = [(number, place) for number, part in enumerate(lines()) for place in places(part)]
NAMES = [(number, place) for number, place in PLACES if isinstance(place[-1], str)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.ledger"


def test_what_is_not_changed_is_read(path):
    path.write_bytes(written(lines()))
    assert path.read_bytes() == contents()[END]
    account = read(path)
    assert (account.charged, len(account.steps), account.plan) == (3, 3, PLAN)


def outcome(path, parts):
    """A refusal, for the reader and for a run that would go on; or what was read."""
    put(path, written(parts))
    try:
        account = read(path)
    except Refusal as refusal:
        text = str(refusal)
        assert text.endswith("Use the version of dpzo that wrote it, or restore the file.") or "schema" in text
        with Ledger(path) as ledger, pytest.raises(Refusal):
            ledger.begin(PLAN, Counted().params, streams(), DATA)
        return "refused"
    account.plan.describe()
    if account.charged <= account.plan.steps:
        account.epsilon(1e-5)
    try:
        with Ledger(path) as ledger:
            ledger.begin(PLAN, Counted().params, streams(), DATA)
    except Refusal as refusal:
        return account._replace(seal=str(refusal))
    return account


@pytest.mark.parametrize(("number", "place"), NAMES, ids=str)
def test_a_field_that_is_missing(path, number, place):
    """Kills: KeyError; a default that takes the place of what was run."""
    parts = lines()
    changed(parts[number], place, lambda inner, name: inner.pop(name))
    assert outcome(path, parts) == "refused"


@pytest.mark.parametrize("number", range(len(lines())))
def test_a_field_that_is_unknown(path, number):
    """Kills: TypeError; a later version's field that is read past."""
    parts = lines()
    for place in [(), *(p for p in places(parts[number]))]:
        new, inner = lines(), None
        inner = new[number]
        for name in place:
            inner = inner[name]
        if isinstance(inner, dict):
            inner["more"] = 1
            assert outcome(path, new) == "refused", place


STRANGE = [
    None,
    True,
    False,
    -1,
    0,
    1,
    2**70,
    0.5,
    1e999,
    float("nan"),
    "",
    "x",
    "0x1p+0",
    [],
    [1],
    {},
    {"kind": "Plan"},
]


@pytest.mark.parametrize(("number", "place"), PLACES, ids=str)
def test_a_field_of_another_type_or_value(path, number, place):
    """Refused, or read as what it says: a plan of other numbers, another seed, a scalar. Never another exception."""
    for strange in STRANGE:
        parts = lines()
        changed(parts[number], place, lambda inner, name, value=strange: inner.__setitem__(name, value))
        found = outcome(path, parts)
        if found != "refused":
            assert place[0] != "NOT PRIVATE"
            assert found.header == json.loads(json.dumps(parts[0]))
            assert found.charged == 3


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
)


@given(st.integers(0, len(lines())), JSON)
@settings(max_examples=200)
@example(1, {"charge": 0, "release": 0})
@example(1, [])
@example(0, [])
@example(7, {"charge": 5})
@example(7, {"checkpoint": 4, "weights": "x"})
def test_any_line_in_any_place(tmp_path_factory, number, line):
    path = tmp_path_factory.getbasetemp() / "line.ledger"
    parts = lines()
    assert outcome(path, [*parts[:number], line, *parts[number:]]) == "refused"


@given(st.integers(0, len(lines()) - 1), st.binary(max_size=30).filter(lambda b: b"\n" not in b))
@example(0, b"[" * 100_000)
@example(1, b'{"charge": 1' + b"0" * 5000 + b"}")
@example(1, b"\xff")
def test_any_bytes_for_a_line(tmp_path_factory, number, text):
    path = tmp_path_factory.getbasetemp() / "bytes.ledger"
    parts = lines()
    parts[number] = text
    assert outcome(path, parts) == "refused"


@pytest.mark.parametrize("kind", ["charge", "release", "checkpoint"])
@pytest.mark.parametrize("by", [-1, 1, 3])
def test_steps_out_of_their_order(path, kind, by):
    """Kills: a charge that is counted from its number alone, so that a missing line is free."""
    parts = lines()
    last = next(part for part in reversed(parts) if kind in part)
    last[kind] += by
    found = outcome(path, parts)
    if (kind, by) == ("checkpoint", -1):
        assert found.weights[last["weights"]] == 2
    elif kind == "release":
        assert "charged first, in order, each once" in found.seal
        assert "dpzo audit" in found.seal
    else:
        assert found == "refused"


def test_more_charges_than_steps_are_read_and_not_gone_on_with(path):
    """The audit reads such a ledger, to say that its build is broken."""
    release = next(part for part in lines() if "release" in part) | {"release": PLAN.steps}
    parts = [lines()[0], *({"charge": index} for index in range(PLAN.steps + 1)), release]
    found = outcome(path, parts)
    assert found.charged == PLAN.steps + 1
    assert "charged first, in order, each once" in found.seal


def test_an_older_schema_is_refused_by_its_number(path):
    parts = lines()
    parts[0]["ledger"] = 1
    path.write_bytes(written(parts))
    with pytest.raises(Refusal, match=f"a ledger of schema {SCHEMA}; got 1 in .*Use the version of dpzo that wrote it"):
        read(path)


def test_a_refused_ledger_shows_nothing_of_what_is_in_it(path):
    parts = lines()
    for number, name in ((0, "weights"), (0, "ledger"), (1, "charge")):
        parts = lines()
        parts[number][name] = {"secret token": "secret token"}
        path.write_bytes(written(parts))
        with pytest.raises(Refusal) as refusal:
            read(path)
        assert "secret" not in str(refusal.value)
