"""User-level privacy: a user's mean loss is its own, and what all of its records do together is clipped."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import dpzo
from dpzo.errors import Refusal
from dpzo.estimators import two_point
from dpzo.mechanisms import GRID, on_grid
from dpzo.models.independence import COUPLED, couples_records
from dpzo.models.module import ModuleModel
from dpzo.models.quadratic import Quadratic
from dpzo.models.users import ByUser, UserModel, UserRecords

USERS = np.array(["eve", "bob", "eve", "ann", "eve", "bob", "dan"])
DATA = torch.arange(28.0, dtype=torch.float64).sin().view(7, 4)
ONE_BY_ONE = {"physical_batch_size": 1}


def model(**options: Any) -> ModuleModel:
    torch.manual_seed(0)
    layer = torch.nn.Linear(4, 1).double()
    return ModuleModel(layer, lambda m, r: m(r).squeeze(1).square(), **options)


def test_a_batch_of_users_is_all_of_their_records() -> None:
    data = ByUser(DATA, USERS)
    assert (len(data), data.unit, data.users.tolist()) == (4, "user", ["ann", "bob", "dan", "eve"])
    batch = data[np.array([3, 0])]
    assert len(batch) == 2
    assert batch.sizes.tolist() == [3, 1]
    assert torch.equal(batch.records, DATA[[0, 2, 4, 3]])
    assert len(data[np.array([], dtype=np.int64)]) == 0


@given(users=st.lists(st.integers(-5, 5), min_size=1, max_size=40), seed=st.integers(0, 99))
def test_losses_are_means_by_user(users: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    records, names = torch.from_numpy(rng.standard_normal((len(users), 4))), np.array(users)
    data, plain = ByUser(records, names), model()
    picked = rng.permutation(len(data))
    own = plain.losses(records).numpy()
    by_hand = [own[names == data.users[i]].mean() for i in picked]
    losses = UserModel(plain).losses(data[picked])
    assert losses.dtype == torch.float64
    np.testing.assert_allclose(losses.numpy(), by_hand, rtol=1e-12)


def test_a_users_mean_is_its_own_to_the_bit() -> None:
    subject, data = UserModel(model(**ONE_BY_ONE)), ByUser(DATA, USERS)
    alone = torch.cat([subject.losses(data[np.array([i])]) for i in range(4)])
    for users in ([0, 1, 2, 3], [3, 2, 1, 0], [1, 3], [3, 3, 0]):
        assert torch.equal(subject.losses(data[np.array(users)]), alone[users])
    order = np.array([4, 0, 6, 3, 2, 5, 1])  # the same users, their records in another order
    assert torch.equal(subject.losses(ByUser(DATA[order], USERS[order])[np.arange(4)]), alone)
    assert couples_records(subject) is None
    assert couples_records(UserModel(model())) == COUPLED


def test_a_loss_that_is_not_finite_is_its_users_alone_and_counts_zero() -> None:
    subject = UserModel(model(**ONE_BY_ONE))
    for bad in (float("nan"), float("inf"), 1e200):
        spoiled = DATA.clone()
        spoiled[2] = bad  # one of eve's three; 1e200 overflows in the loss
        clean, dirty = (subject.losses(ByUser(d, USERS)[np.arange(4)]) for d in (DATA, spoiled))
        assert torch.isnan(dirty[3])
        assert torch.equal(clean[:3], dirty[:3])
        u = dpzo.GaussianDirection().draw(subject.params, 1)
        clean, dirty = (two_point(subject, ByUser(d, USERS)[np.arange(4)], u, 1e-3) for d in (DATA, spoiled))
        assert np.array_equal(on_grid(dirty, 1.0), [*on_grid(clean, 1.0)[:3], 0])
    huge = Losses(torch.tensor([1e308, 1e308, 3.0], dtype=torch.float64))
    batch = UserRecords(np.arange(3), np.array([2, 1]))
    assert torch.equal(UserModel(huge).losses(batch).isnan(), torch.tensor([True, False]))


class Losses:
    """A table of losses as a model."""

    params = Quadratic(torch.ones(2), torch.zeros(2)).params

    def __init__(self, table: torch.Tensor) -> None:
        self.table = table

    def losses(self, records: Any) -> torch.Tensor:
        return self.table[torch.as_tensor(records)]


@given(
    values=st.lists(st.floats(-1e6, 1e6), min_size=6, max_size=6),
    others=st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=3, max_size=3),
    clip=st.floats(0.01, 100),
)
def test_all_records_of_a_user_move_the_clipped_sum_by_c_or_2c_at_most(
    values: list[float], others: list[float], clip: float
) -> None:
    """Kills: records clipped one by one, whose sum moves by three times as much."""
    names = np.array([0, 1, 1, 1, 2, 2])
    table = torch.tensor(values, dtype=torch.float64)
    changed = table.clone()
    changed[1:4] = torch.tensor(others, dtype=torch.float64)

    def total(of: torch.Tensor, users: list[int]) -> int:
        derivatives = UserModel(Losses(of)).losses(ByUser(np.arange(6), names)[np.array(users)]).numpy()
        return int(on_grid(derivatives, clip).sum())

    assert abs(total(table, [0, 1, 2]) - total(table, [0, 2])) <= GRID
    assert abs(total(table, [0, 1, 2]) - total(changed, [0, 1, 2])) <= 2 * GRID


def test_records_clipped_one_by_one_would_move_it_by_more() -> None:
    assert on_grid(np.full(3, 9.0), 1.0).sum() == 3 * GRID
    batch = ByUser(np.arange(3), np.zeros(3, dtype=int))[np.array([0])]
    mean = UserModel(Losses(torch.full((3,), 9.0, dtype=torch.float64))).losses(batch).numpy()
    assert on_grid(mean, 1.0).sum() == GRID


def plan(unit: str, n: int) -> dpzo.Plan:
    from dataclasses import replace

    made = dpzo.dpzero(
        n=n, steps=30, step_size=0.05, zo_eps=1e-3, clip_threshold=1.0, batch_size=2, noise_multiplier=0.5,
        relation=dpzo.Relation.ADD_REMOVE,
    )  # fmt: skip
    return replace(made, unit=unit)


def test_a_run_by_user_trains_and_charges_by_user() -> None:
    def ends(users: Any, records: torch.Tensor) -> torch.Tensor:
        subject = UserModel(model(**ONE_BY_ONE))
        steps = list(dpzo.run(plan("user", 4), subject, ByUser(records, users), dpzo.Streams.not_private(1, 2)))
        assert len(steps) == 30
        return subject.params["weight"].clone()

    start = model().params["weight"]
    assert not torch.equal(ends(USERS, DATA), start)
    order = np.array([6, 5, 4, 3, 2, 1, 0])
    assert torch.equal(ends(USERS, DATA), ends(USERS[order], DATA[order]))
    # Each record twice: every user's mean, and so the run, is as before.
    twice = np.repeat(np.arange(7), 2)
    assert torch.equal(ends(USERS, DATA), ends(USERS[twice], DATA[twice]))


def test_one_record_for_each_user_is_privacy_by_record() -> None:
    by_user, by_record = UserModel(model(**ONE_BY_ONE)), model(**ONE_BY_ONE)
    streams = dpzo.Streams.not_private(1, 2)
    data = ByUser(DATA, np.arange(7))
    first = dpzo.digest(dpzo.run(plan("user", 7), by_user, data, streams))
    assert first == dpzo.digest(dpzo.run(plan("record", 7), by_record, DATA, streams))


def test_users_and_records_are_not_taken_for_each_other() -> None:
    streams = dpzo.Streams.not_private(1, 2)
    with pytest.raises(Refusal, match="unit is a record"):
        dpzo.run(plan("record", 4), UserModel(model()), ByUser(DATA, USERS), streams)
    with pytest.raises(Refusal, match="unit is a user"):
        dpzo.run(plan("user", 7), model(), DATA, streams)
    with pytest.raises(Refusal, match="the 7 users that the plan was made for"):
        dpzo.run(plan("user", 7), UserModel(model()), ByUser(DATA, USERS), streams)


@pytest.mark.parametrize("users", [["a", "b"], [["a"]] * 7, [0.5] * 7, [None] * 7])
def test_records_without_a_user_each_are_refused(users: Any) -> None:
    with pytest.raises(Refusal, match=r"a user for each of 7 records|users named by"):
        ByUser(DATA, users)
