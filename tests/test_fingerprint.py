"""The same content has the same fingerprint, and no other content has it."""

import dataclasses
import hashlib
import math
from collections import OrderedDict
from decimal import Decimal
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dpzo import Refusal
from dpzo.fingerprint import fingerprint
from dpzo.models.encoding import Records
from dpzo.parameters import Parameters

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.int8, torch.uint8, torch.bool]


@dataclasses.dataclass(frozen=True)
class One:
    a: object
    b: object = None


@dataclasses.dataclass(frozen=True)
class Other:
    a: object
    b: object = None


def records(ids=((1, 2, 3), (4,)), position=(0, 1), label=(1, 0), passed=None):
    arrays = tuple(np.array(i, dtype=np.int64) for i in ids)
    return Records(arrays, np.array(position), np.array(label), passed)


DIFFERENT = [
    *(torch.zeros(4, dtype=dtype) for dtype in DTYPES),
    *(torch.zeros(shape) for shape in ((), (1,), (2, 2), (4, 1), (1, 4), (0,), (0, 3), (3, 0))),
    torch.tensor([0.0, -0.0]),
    torch.tensor([0.0, 0.0]),
    torch.tensor([-0.0, 0.0]),
    torch.tensor([math.nan, 0.0]),
    *(torch.zeros(0, dtype=dtype) for dtype in (torch.bfloat16, torch.int64)),
    *(np.zeros(shape) for shape in ((), (4,), (2, 2), (0,), (0, 3))),
    *(np.zeros(4, dtype=dtype) for dtype in ("f4", ">f8", "i8", "u8", "M8[s]", "M8[ns]", "U3", "S3", "?")),
    np.zeros(4, dtype=[("a", "f8")]),
    np.zeros(4, dtype=[("b", "f8")]),
    np.array(["ab", "c"]),
    np.array(["a", "bc"]),
    *(None, False, True, 0, 1, -1, 2**70, 0.0, -0.0, 1.0, math.nan, math.inf),
    *("", "0", "1", "None", "int 1 1 ", "a", "é", "\ud800", "\0", b"", b"a", b"0"),
    *([], [[]], [[], []], [[[]]], ["a", "b"], ["b", "a"], ["ab"], [["a"], "b"], ["a", ["b"]], [["a", "b"]]),
    *({}, {"a": 1}, {"a": 1.0}, {"b": 1}, {1: "a"}, {"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 2, "b": 1}),
    *({"a": {"b": 2}}, [{"a": 1}, {"b": 2}], {"a": None}),
    *(One(1), One(2), Other(1), One(None, 1), One(One(1))),
    {"a": 1, "b": None},
    records(),
    records(ids=((1, 2), (3, 4))),
    records(ids=((1, 2, 3, 4), ())),
    records(ids=((4,), (1, 2, 3))),
    records(position=(1, 0)),
    records(label=(1, 1)),
    records(ids=()),
    records(ids=(), passed=torch.zeros(2, 3)),
    records(ids=(), passed=torch.zeros(2, 3, dtype=torch.bfloat16)),
    records(ids=(), passed=np.zeros((2, 3))),
]


def test_different_things_have_different_fingerprints():
    """Kills: a hash of the bytes alone; of sorted keys; of flattened lists; of texts that run into each other."""
    named = {}
    for number, what in enumerate(DIFFERENT):
        named.setdefault(fingerprint(what), []).append(number)
    assert [[DIFFERENT[n] for n in same] for same in named.values() if len(same) > 1] == []


SAME = [
    (torch.arange(6).view(2, 3), torch.arange(6).view(3, 2).T.contiguous().T.reshape(2, 3)),
    (torch.arange(12.0)[::2], torch.tensor([0.0, 2, 4, 6, 8, 10])),
    (torch.arange(6.0).view(2, 3).T, torch.tensor([[0.0, 3], [1, 4], [2, 5]])),
    (torch.ones(3, requires_grad=True), torch.ones(3)),
    (torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16)), torch.ones(3, dtype=torch.bfloat16)),
    (np.arange(6.0).reshape(2, 3).T, np.array([[0.0, 3], [1, 4], [2, 5]])),
    (np.asfortranarray(np.ones((2, 3))), np.ones((2, 3))),
    (np.float64(0.5), np.array(0.5)),
    ([np.int64(3)], [np.array(3)]),
    ([1, (2, 3)], (1, [2, 3])),
    ({"a": 1}, OrderedDict(a=1)),
    ({"x": torch.ones(2)}, Parameters({"x": torch.ones(2)})),
    (records(), records()),
    ("ab", "".join(["a", "b"])),
]


@pytest.mark.parametrize(("one", "two"), SAME)
def test_the_same_content_has_the_same_fingerprint(one, two):
    assert fingerprint(one) == fingerprint(two)


@pytest.mark.parametrize("dtype", [*DTYPES, torch.complex64, torch.float8_e4m3fn, torch.uint16], ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3)])
def test_any_flipped_bit_of_a_tensor(dtype, shape):
    plain = torch.zeros(shape, dtype=dtype)
    before = fingerprint(plain)
    size = plain.element_size()
    seen = {before}
    for coordinate in range(plain.numel()):
        for byte in range(size):
            changed = plain.clone()
            changed.view(-1).view(torch.uint8)[coordinate * size + byte] = 1
            seen.add(fingerprint(changed))
    assert len(seen) == 1 + plain.numel() * size
    assert fingerprint(plain) == before


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.lists(st.integers(-9, 9)).map(lambda x: np.array(x, dtype=np.int64))
    | st.lists(st.floats(width=32)).map(lambda x: torch.tensor(x, dtype=torch.float32))
)
THINGS = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3)
)


def written(what):
    """The content spelled out, so that two things are the same when their spellings are."""
    if isinstance(what, torch.Tensor):
        return "tensor", str(what.dtype), tuple(what.shape), what.numpy().tobytes()
    if isinstance(what, np.ndarray):
        return "array", what.dtype.str, what.shape, what.tobytes()
    if isinstance(what, dict):
        return "mapping", tuple((written(key), written(value)) for key, value in what.items())
    if isinstance(what, list):
        return "list", tuple(map(written, what))
    return type(what).__name__, repr(what)


@given(st.lists(THINGS, min_size=2, max_size=6))
def test_two_things_have_the_same_fingerprint_just_when_they_are_the_same(things):
    for one, two in combinations(things, 2):
        assert (fingerprint(one) == fingerprint(two)) == (written(one) == written(two))


@given(st.lists(st.text(alphabet="a1 '", max_size=4), max_size=4), st.lists(st.text(alphabet="a1 '", max_size=4)))
def test_texts_never_run_into_each_other(one, two):
    assert (fingerprint(one) == fingerprint(two)) == (one == two)
    assert (fingerprint([one, two]) == fingerprint([[], one + two])) == (one == [])


@pytest.mark.parametrize(
    "what",
    [object(), {1}, Decimal(1), One, np.array([None]), np.zeros(1, dtype=[("a", "O")]), torch.eye(2).to_sparse()],
    ids=str,
)
def test_what_has_no_fingerprint_is_refused(what):
    for nested in (what, [what], {"a": what}, One(what)):
        with pytest.raises(Refusal, match=r"Ledger\(data="):
            fingerprint(nested)


def test_a_fingerprint_is_fixed_for_ever():
    """Kills: a change after which every ledger is one of other data."""
    what = [1, 0.5, "a", None, {"x": torch.arange(2)}, np.ones(2, dtype="<f4"), One(True)]
    spelled = (
        b"list 7 int 1 1 float 3 0.5 str 3 'a' NoneType 4 None mapping 1 str 3 'x' tensor torch.int64 (2,) "
        b"\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0array [('', '<f4')] (2,) \0\0\x80\x3f\0\0\x80\x3f"
        b"dataclass One mapping 2 str 3 'a' bool 4 True str 3 'b' NoneType 4 None "
    )
    assert fingerprint(what) == hashlib.sha256(spelled).hexdigest()


def test_fingerprinting_changes_nothing():
    tensor, array = torch.arange(6.0).view(2, 3).T, np.arange(6.0).reshape(2, 3).T
    fingerprint([tensor, array])
    assert not tensor.is_contiguous()
    assert array.flags.f_contiguous
    assert torch.equal(tensor.T.reshape(-1), torch.arange(6.0))
