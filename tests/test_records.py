"""Records in any form, and the made-up ones."""

from collections import namedtuple

import numpy as np
import pytest
import torch
import transformers

from dpzo.models.encoding import Records
from dpzo.models.users import UserRecords
from dpzo.records import made_up, pick, shape_of, size_of

Pair = namedtuple("Pair", ["x", "y"])
X, Y = torch.arange(12.0).view(4, 3), torch.tensor([1, 0, 1, 1])
FORMS = {
    "tensor": X,
    "array": X.numpy(),
    "dict": {"x": X, "y": Y},
    "tuple": (X, Y),
    "named tuple": Pair(X, Y),
    "lists": {"ids": [[1, 2], [3], [4, 5, 6], [7]], "label": [0, 1, 0, 1], "weight": [0.5, 1.0, 2.0, 4.0]},
    "batch encoding": transformers.BatchEncoding({"x": X, "y": Y}),
}
EVERY = pytest.mark.parametrize("records", FORMS.values(), ids=FORMS)


def flat(records):
    if hasattr(records, "items"):
        return [value for field in records.values() for value in flat(field)]
    if isinstance(records, tuple):
        return [value for field in records for value in flat(field)]
    return [np.asarray(one).tolist() for one in records]


@EVERY
def test_records_are_counted_and_picked_in_their_own_form(records):
    assert size_of(records) == 4
    picked = pick(records, np.array([2, 0, 2]))
    assert type(picked) is type(records)
    assert size_of(picked) == 3
    whole = flat(records)
    fields = len(whole) // 4
    assert flat(picked) == [whole[4 * field + row] for field in range(fields) for row in (2, 0, 2)]
    assert shape_of(picked) == shape_of(records)


@EVERY
@pytest.mark.parametrize("spread", [1.0, 8.0])
def test_made_up_records_differ_in_every_field_and_hold_nothing_of_the_real_ones(records, spread):
    """Kills: one value for every scalar, by which class weights from the batch look independent of it."""
    made = made_up(records, range(6), spread=spread)
    assert type(made) is type(records)
    assert size_of(made) == 6
    values = flat(made)
    for start in range(0, len(values), 6):
        assert len(set(map(str, values[start : start + 4]))) > 1
    assert flat(made_up(records, [3, 1], spread=spread))[:2] == [values[3], values[1]]  # told by its number alone
    assert flat(made_up(pick(records, np.array([3])), range(6), spread=spread))[:1] != flat(records)[:1]
    if spread == 1:
        numbers = [number for value in values for number in np.ravel(np.array(value, dtype=float))]
        assert 0 <= min(numbers) <= max(numbers) <= 1


def test_two_labels_of_a_record_are_told_apart():
    made = made_up((Y, Y, Y > 0), range(4))
    assert len({tuple(field.int().tolist()) for field in made}) > 1
    assert set(made_up(Y, range(4), least=1).tolist()) == {1, 2}


def test_encoded_records_and_users_make_up_their_own():
    texts = Records((np.array([5, 6]),), np.array([1]), np.array([0]))
    assert [len(ids) for ids in made_up(texts, [0, 2]).ids] == [3, 5]
    states = Records((), np.array([1]), np.array([0]), torch.ones(1, 7))
    assert made_up(states, range(3)).passed.shape == (3, 7)
    users = made_up(UserRecords(X, np.array([4])), range(3))
    assert users.sizes.tolist() == [1, 2, 3]
    assert users.records.shape == (6, 3)


def test_what_has_no_known_form_cannot_be_made_up():
    for records in (object(), {"a": object()}, ["text"]):
        with pytest.raises(TypeError):
            made_up(records, range(2))
