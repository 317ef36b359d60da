import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dpzo import GaussianDirection, ModuleModel, Refusal
from dpzo.parameters import Parameters

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def bits(params):
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    return {name: t.detach().clone().view(integers[t.element_size()]) for name, t in params.items()}


def same_bits(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


@given(
    shapes=st.lists(st.lists(st.integers(1, 9), max_size=3), min_size=1, max_size=4),
    dtype=st.sampled_from(DTYPES),
    scale=st.floats(-1e6, 1e6),
    size=st.sampled_from([1e-8, 0.02, 1.0, 1e4]),
    seed=st.integers(0, 2**64 - 1),
)
def test_moved_restores_every_bit(shapes, dtype, scale, size, seed):
    generator = torch.Generator().manual_seed(seed % 2**32)
    params = Parameters({f"t{i}": (size * torch.randn(s, generator=generator)).to(dtype) for i, s in enumerate(shapes)})
    before, addresses = bits(params), [t.data_ptr() for t in params.values()]
    u = GaussianDirection().draw(params, seed)
    with params.moved(u, scale):
        pass
    with params.moved(u, -scale):
        pass
    assert same_bits(bits(params), before)
    assert [t.data_ptr() for t in params.values()] == addresses


def test_moved_is_where_it_says():
    params = Parameters({"x": torch.ones(50), "y": torch.ones(3, 4)})
    u = GaussianDirection().draw(params, 1)
    dense = u.dense()
    with params.moved(u, 0.5):
        for name, t in params.items():
            torch.testing.assert_close(t, 1 + 0.5 * dense[name])


def test_moved_restores_after_an_exception():
    params = Parameters({"x": torch.randn(50), "y": torch.randn(3, 4)})
    before = bits(params)

    def fail():
        with params.moved(GaussianDirection().draw(params, 1), 0.1):
            raise RuntimeError("the model failed")

    for _ in range(2):
        with pytest.raises(RuntimeError, match="the model failed"):
            fail()
        assert same_bits(bits(params), before)


def test_special_values_come_back():
    params = Parameters({"x": torch.tensor([float("nan"), float("inf"), -0.0, 1e-45])})
    before = bits(params)
    with params.moved(GaussianDirection().draw(params, 1), 1.0):
        pass
    assert same_bits(bits(params), before)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(10, 4)
        self.head = nn.Linear(4, 10, bias=False)
        self.head.weight = self.embed.weight
        self.again = self.head

    def forward(self, tokens):
        return self.again(self.head.weight[tokens] + self.embed(tokens))


def test_tied_and_shared_modules_move_together_and_come_back():
    model = ModuleModel(Tied(), lambda module, tokens: module(tokens).square().sum(-1))
    assert list(model.params) == ["embed.weight"]
    tokens, before = torch.arange(10), bits(model.params)
    at_home = model.losses(tokens)
    u = GaussianDirection().draw(model.params, 1)
    with model.params.moved(u, 0.1):
        moved = model.params["embed.weight"].detach().clone()
        expected = (2 * moved @ moved.T).square().sum(-1)
        torch.testing.assert_close(model.losses(tokens), expected)
    assert same_bits(bits(model.params), before)
    assert torch.equal(model.losses(tokens), at_home)
    assert model.module.embed.weight is model.module.head.weight


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_moving_in_place_does_not_restore(dtype):
    """The counterexample that ``moved`` is for: +l, -2l, +l in place, as the public code does."""
    x = {"x": (0.02 * torch.randn(10_000, generator=torch.Generator().manual_seed(0))).to(dtype)}
    before = x["x"].clone()
    u = GaussianDirection().draw(x, 1)
    for scale in (1e-3, -2e-3, 1e-3):
        u.add_(x, scale)
    assert (x["x"] != before).float().mean() > 0.2


def test_snapshot_and_restore():
    params = Parameters({"x": torch.ones(3), "y": torch.zeros(2, 2)})
    snapshot = params.snapshot()
    with torch.no_grad():
        params["x"].mul_(5)
    assert torch.equal(snapshot["x"], torch.ones(3))
    params.restore(snapshot)
    assert torch.equal(params["x"], torch.ones(3))
    assert params.count == 7
    assert len(params) == 2


TIED = torch.zeros(3)


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"x": torch.zeros(0)},
        {"x": torch.zeros(3), "y": torch.zeros(2, 0)},
        {"x": torch.zeros(3, dtype=torch.int64)},
        {"x": torch.zeros(3, dtype=torch.complex64)},
        {"x": TIED, "y": TIED},
        {"x": TIED, "y": TIED.view(1, 3)},
    ],
    ids=["none", "empty", "one empty", "integers", "complex", "twice", "a view"],
)
def test_what_cannot_be_trained_is_refused(tensors):
    with pytest.raises(Refusal):
        Parameters(tensors)


def test_a_strided_view_is_refused():
    with pytest.raises(Refusal, match="contiguous"):
        Parameters({"x": torch.zeros(4, 6).t()})
