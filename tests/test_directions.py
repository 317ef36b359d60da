import itertools
import math

import numpy as np
import pytest
import torch

import dpzo.directions
from dpzo import GaussianDirection, SphereDirection, Streams
from dpzo.directions import ahead, seeds_of
from tests.chance import ALPHA, correlation_p

BOTH = pytest.mark.parametrize("direction", [GaussianDirection(), SphereDirection()])
SHAPES = {"b.weight": (7, 11), "a.weight": (7, 11), "a.bias": (11,), "scalar": (), "big": (600, 500)}


def tensors(names=SHAPES, dtype=torch.float32):
    return {name: torch.zeros(SHAPES[name], dtype=dtype) for name in names}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@BOTH
def test_the_seed_is_all_that_counts(direction):
    u = direction.draw(tensors(), 5).dense()
    assert same(u, direction.draw(tensors(), 5).dense())
    other = direction.draw(tensors(), 6).dense()
    assert not any(torch.isclose(u[name], other[name], rtol=1e-6).any() for name in ("a.weight", "a.bias"))


def test_gaussian_does_not_see_the_order_or_the_other_tensors():
    u = GaussianDirection().draw(tensors(), 5).dense()
    reverse = GaussianDirection().draw(tensors(reversed(SHAPES)), 5).dense()
    assert all(torch.equal(u[name], reverse[name]) for name in SHAPES)
    for name in SHAPES:
        assert torch.equal(GaussianDirection().draw(tensors([name]), 5).dense()[name], u[name])


def test_sphere_does_not_see_the_order():
    u = SphereDirection().draw(tensors(), 5).dense()
    reverse = SphereDirection().draw(tensors(reversed(SHAPES)), 5).dense()
    assert all(torch.equal(u[name], reverse[name]) for name in SHAPES), "the norm must be summed exactly"


@BOTH
def test_the_number_of_threads_does_not_count(direction):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = direction.draw(tensors(), 5).dense()
        torch.set_num_threads(2)
        two = direction.draw(tensors(), 5).dense()
    finally:
        torch.set_num_threads(before)
    assert same(one, two)


@BOTH
@pytest.mark.parametrize("block", [2**18, 1024, 97])
def test_held_and_regenerated_are_the_same_bits(direction, block, monkeypatch):
    like = tensors() if block % 512 == 0 else tensors(["b.weight", "a.bias", "scalar"])
    held = direction.draw(like, 5)
    once = held.dense()
    if isinstance(direction, GaussianDirection):
        monkeypatch.setattr(dpzo.directions, "_BLOCK", block)
    released = direction.draw(like, 5, hold=False)
    monkeypatch.setattr(dpzo.directions, "_HELD", 0)
    too_long = direction.draw(like, 5)
    for regenerated in (released, too_long):
        assert same(once, regenerated.dense())
        assert same(once, regenerated.dense()), "at its second use too"
        assert regenerated.norm() == held.norm() or block % 512
        assert regenerated._held is None
    assert held._held is not None
    assert same(once, held.dense())


@BOTH
def test_the_global_generators_are_neither_read_nor_written(direction):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    u = direction.draw(tensors(), 5).dense()
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(1)
    assert same(u, direction.draw(tensors(), 5).dense())


@pytest.mark.statistical
@BOTH
def test_equal_shapes_with_different_names_are_independent(direction):
    """Kills: the same seed for each layer (es-at-scale, issue 46)."""
    like = {"layer.0": torch.zeros(200, 200), "layer.1": torch.zeros(200, 200)}
    u = direction.draw(like, 5).dense()
    x, y = u["layer.0"].flatten().numpy(), u["layer.1"].flatten().numpy()
    assert correlation_p(x, y) > ALPHA
    assert correlation_p(x, x[::-1] * 0.9 + 0.1 * x) < ALPHA, "the same numbers in another order and a tenth in place"


@pytest.mark.parametrize("names", [["scalar"], ["a.bias"], list(SHAPES)])
@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
def test_sphere_has_radius_root_d(names, seed):
    u = SphereDirection().draw(tensors(names), seed)
    norm = math.sqrt(sum(t.double().square().sum() for t in u.dense().values()))
    assert norm == pytest.approx(math.sqrt(u.count), rel=1e-6)
    assert u.norm() == pytest.approx(norm, rel=1e-6)
    if u.count > 1:
        assert GaussianDirection().draw(tensors(names), seed).norm() != pytest.approx(norm, rel=1e-6)


@BOTH
def test_sphere_is_the_gaussian_rescaled(direction):
    z = GaussianDirection().draw(tensors(), 5)
    u = direction.draw(tensors(), 5)
    ratio = u.dense()["big"] / z.dense()["big"]
    torch.testing.assert_close(ratio, torch.full_like(ratio, u.norm() / z.norm()), rtol=1e-6, atol=0)


@BOTH
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_add_rounds_once_to_the_tensors_own_type(direction, dtype):
    base = {name: torch.linspace(-2, 2, t.numel()).view(t.shape).to(dtype) for name, t in tensors().items()}
    x = {name: t.clone() for name, t in base.items()}
    u = direction.draw(x, 5)
    exact = {name: t.double() for name, t in base.items()}
    u.add_(exact, 0.37)
    u.add_(x, 0.37)
    for name, t in x.items():
        assert t.dtype == dtype
        # float32 arithmetic first: at most one more half unit of float32 than rounding the exact sum.
        slack = 0.0 if dtype == torch.float64 else 2.0**-23 * 4
        half_unit = exact[name].abs() * torch.finfo(dtype).eps / 2
        assert ((t.double() - exact[name]).abs() <= half_unit * 1.001 + slack).all()


@BOTH
def test_add_into_leaves_the_source(direction):
    source, target = tensors(), tensors()
    u = direction.draw(source, 5)
    u.add_(source, 2.0, into=target)
    assert not any(t.any() for t in source.values())
    for name, dense in u.dense().items():
        torch.testing.assert_close(target[name], 2 * dense, rtol=1e-6, atol=0)


@BOTH
@pytest.mark.parametrize("room", [1, 89, 534, 10**4, 10**7])  # a step needs 89 coordinates, or 3 * 89
def test_drawn_ahead_is_the_same_bits(direction, room, monkeypatch):
    monkeypatch.setattr(dpzo.directions, "_AHEAD", room)
    names = ["b.weight", "a.bias", "scalar"]
    seeds = [5, 2**64 - 1, 0, 6, 7]
    for K in (1, 3):
        drawn = list(ahead(direction, tensors(names), iter(seeds), K))
        assert [tuple(u.seed for u in us) for us in drawn] == [seeds_of(seed, K) for seed in seeds]
        for u in (u for us in drawn for u in us):
            alone = direction.draw(tensors(names), u.seed)
            assert u.norm() == alone.norm()
            assert same(u.dense(), alone.dense())


@pytest.mark.parametrize("limit", [10**6, 800, 700])
def test_several_directions_are_held_together_or_not_at_all(limit, monkeypatch):
    """Kills: K directions that each fit in memory and together do not."""
    monkeypatch.setattr(dpzo.directions, "_AHEAD", 1)
    monkeypatch.setattr(dpzo.directions, "_HELD", limit)
    like = {"x": torch.zeros(200)}
    (us,) = ahead(GaussianDirection(), like, iter([5]), 4)
    first = [u.dense() for u in us]
    assert all((u._held is not None) == (limit >= 800) for u in us)
    assert all(same(u.dense(), dense) for u, dense in zip(us, first, strict=True))


def test_the_seeds_of_a_step():
    """The first is the step's own, so one direction is what it always was; none is met twice."""
    assert seeds_of(5, 1) == (5,)
    assert seeds_of(5, 4)[:2] == seeds_of(5, 2)
    streams = Streams.secure(5)
    steps = [streams.direction_seed(index) for index in range(-1, 300)]
    seeds = [seed for step in (5, *steps) for seed in seeds_of(step, 8)]
    assert len(set(seeds)) == len(seeds), "nor is another run's step, whose public seed is this step's"
    assert all(0 <= seed < 2**64 for seed in seeds)
    # Fixed for ever, or old transcripts could not be replayed.
    assert seeds_of(5, 3) == (5, 10776581906836929202, 7264646022881360355)


@pytest.mark.statistical
@BOTH
def test_the_directions_of_a_step_are_uncorrelated(direction):
    """Kills: K times the same direction; one shifted by a few coordinates to make the next."""
    like = {"x": torch.zeros(20_000)}
    (us,) = ahead(direction, like, iter([5]), 3)
    dense = [u.dense()["x"].numpy().astype(float) for u in us]
    for first, second in itertools.combinations(dense, 2):
        for shift in range(-4, 5):
            assert correlation_p(first, np.roll(second, shift)) > ALPHA
    assert correlation_p(dense[0], dense[1] + 0.1 * dense[0]) < ALPHA
