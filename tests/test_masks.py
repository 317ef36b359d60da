"""Which coordinates a pruning keeps, and what a mask takes in memory."""

import math
from itertools import accumulate

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dpzo import GaussianDirection, Pruning, Refusal
from dpzo.masks import Kept, Mask
from dpzo.models.module import ModuleModel
from dpzo.models.users import UserModel
from dpzo.parameters import Parameters
from dpzo.scores import SCORES
from tests.test_scores import model_of, network

SHAPES = {"a": (30, 7), "b": (3,), "c": (11, 10)}


class Bare:
    def __init__(self, tensors):
        self.params = Parameters(tensors)


def model(seed=0):
    g = torch.Generator().manual_seed(seed)
    return Bare({name: torch.randn(shape, generator=g) for name, shape in SHAPES.items()})


def kept(mask, count):
    return np.concatenate([np.isin(np.arange(count[n]), mask.indices(n).numpy()) for n in count])


SIZES = {name: math.prod(shape) for name, shape in SHAPES.items()}


@given(st.floats(1e-3, 1.0), st.booleans(), st.sampled_from(["global", "layer"]))
def test_the_best_share_is_kept(keep, largest, scope):
    """Kills: a share rounded down to nothing, the other end, a competition of the wrong scope."""
    m = model()
    mask = Pruning(score="magnitude", largest=largest, scope=scope).mask(m, keep)
    flat = {name: t.abs().flatten().numpy() for name, t in m.params.items()}
    groups = [list(flat)] if scope == "global" else [[name] for name in flat]
    for group in groups:
        values = np.concatenate([flat[n] for n in group])
        order = np.argsort(-values if largest else values, kind="stable")
        expected = np.zeros(len(values), bool)
        expected[order[: math.ceil(keep * len(values))]] = True
        assert np.array_equal(kept(mask, {n: SIZES[n] for n in group}), expected)


def test_of_equal_scores_the_earlier_coordinates():
    mask = Pruning(score="magnitude").mask(Bare({"a": torch.ones(10), "b": torch.ones(10)}), 0.6)
    assert mask.indices("a").tolist() == list(range(10))
    assert mask.indices("b").tolist() == [0, 1]


@given(st.lists(st.floats(0.01, 1.0), min_size=2, max_size=5), st.sampled_from(["global", "layer"]), st.booleans())
def test_incremental_masks_are_nested_and_the_best_of_those(shares, scope, largest):
    """Kills: a mask made anew from other weights; one that is filled up, or cut, by place; quotas counted as a sum;
    what was left ranked above negative ranks."""
    pruning, before = Pruning(score="magnitude", largest=largest, scope=scope, strategy="incremental"), None
    groups = [list(SIZES)] if scope == "global" else [[name] for name in SIZES]
    for stage, keep in enumerate(shares):
        m = model(stage)
        mask = pruning.mask(m, keep, before)
        for group in groups:
            sizes = {name: SIZES[name] for name in group}
            values = np.concatenate([m.params[name].abs().flatten().numpy() for name in group])
            values = values if largest else -values
            mine = kept(mask, sizes)
            assert mine.sum() == math.ceil(keep * len(values))
            if before is None:
                continue
            old = kept(before, sizes)
            assert not (old & ~mine).any() or not (mine & ~old).any()
            open_to_choice = ~old if mine.sum() >= old.sum() else old
            best, rest = values[mine & open_to_choice], values[~mine & open_to_choice]
            assert not len(best) or not len(rest) or best.min() >= rest.max()
        before = mask


def test_weights_of_a_growing_mask_still_go_by_rank():
    """Kills: what was kept before ranked by its place."""
    pruning = Pruning(score="magnitude", strategy="incremental", weights=(1.2, 0.8))
    before = pruning.mask(Bare({"a": torch.tensor([9.0, 8.0, 0.1, 0.2])}), 0.5)
    mask = pruning.mask(Bare({"a": torch.tensor([3.0, 5.0, 2.0, 4.0])}), 1.0, before)
    assert mask.weights["a"].tolist() == pytest.approx([0.8 + 0.4 / 3, 1.2, 0.8, 0.8 + 0.8 / 3])


def test_a_shrinking_mask_scores_in_one_pass():
    """Kills: rounds that prune the coordinates which the mask must choose from."""
    m = synaptic()
    pruning = Pruning(score="synflow", strategy="incremental")
    before = Pruning(score="random").mask(m, 0.5)
    mask, scores = pruning.mask(m, 0.2, before), SCORES["synflow"](m, 1.0, 0)
    values = torch.cat([scores[name].flatten()[before.indices(name)] for name in scores])
    ours = torch.cat([scores[name].flatten()[mask.indices(name)] for name in scores])
    assert torch.equal(ours.sort().values, values.sort().values[-len(ours) :])


def synaptic():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    return ModuleModel(net, lambda n, b: n(b).sum(1), data_free=lambda n: n(torch.ones(1, 6)).sum())


def test_weights_fall_with_the_rank():
    m = Bare({"a": torch.tensor([1.0, -4.0, 2.0]), "b": torch.tensor([3.0, 0.5])})
    mask = Pruning(score="magnitude", weights=(1.2, 0.8)).mask(m, 0.8)
    assert mask.indices("a").tolist() == [0, 1, 2]
    assert mask.weights["a"].tolist() == pytest.approx([0.8, 1.2, 0.8 + 0.4 / 3])
    assert mask.weights["b"].tolist() == pytest.approx([0.8 + 0.8 / 3])


def held(work):
    """What ``work`` gives, the most bytes that torch handed out at once meanwhile, and those that are left."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as seen:
        result = work()
    moves = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    levels = list(accumulate(e.nbytes() for e in sorted(moves, key=lambda e: e.start_ns())))
    return result, max(levels), levels[-1]


def test_a_packed_mask_unpacks_to_itself_and_is_small():
    """Two bytes for each kept coordinate: of 1 % of float32 weights half a hundredth. Kills: int64 places, and places
    that are held where nbytes does not count them."""
    count, g = 3_000_001, torch.Generator().manual_seed(0)
    at = torch.randperm(count, generator=g)[: count // 100].sort().values
    mask, _, stays = held(lambda: Mask({"w": at.clone(), "none": at[:0].clone()}))
    assert torch.equal(mask.indices("w"), at)
    assert torch.equal(mask.indices("w", slice(777, 20_001)), at[777:20_001])
    assert not len(mask.indices("none"))
    assert stays == mask.nbytes < 0.0051 * 4 * count


def test_a_step_unpacks_a_piece_at_a_time():
    """Kills: all places as int64 at once, when values are packed, moved or written back."""
    full, count = Parameters({"w": torch.zeros(4_000_000)}), 2_000_000
    mask = Mask({"w": torch.arange(0, 2 * count, 2)})
    packed, most, stays = held(lambda: Kept(full, mask))
    assert stays == 4 * count
    assert most < stays + 2**21

    def step():
        u = GaussianDirection().draw(packed, seed=1, hold=packed.hold)
        with packed.moved(u, 0.5):
            pass
        packed.add_(u, 0.5)

    _, most, stays = held(step)
    assert stays == 0
    assert most < 8 * count


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("weights", [None, (1.5, 0.5)])
def test_excursions_come_back_to_the_bit(dtype, weights):
    m = Bare({name: t.to(dtype) for name, t in model().params.items()})
    start = m.params.snapshot()
    mask = Pruning(score="magnitude", weights=weights).mask(m, 0.3)
    packed = Kept(m.params, mask)
    u = GaussianDirection().draw(packed, seed=7)
    with packed.moved(u, 0.5):
        away = m.params.snapshot()
    for name in SHAPES:
        assert torch.equal(m.params[name], start[name])
        at = mask.indices(name)
        z = u.dense()[name] if name in packed else torch.empty(0)
        scaled = z if weights is None else z * mask.weights[name]
        expected = start[name].flatten().clone()
        expected[at] = (start[name].flatten()[at].to(scaled.dtype) + 0.5 * scaled).to(dtype)
        torch.testing.assert_close(away[name].flatten(), expected)
    packed.add_(u, 0.5)
    assert all(torch.equal(m.params[name], away[name]) for name in SHAPES)


def test_synflow_prunes_in_rounds_so_that_no_layer_is_lost():
    """Kills: a single pass, which takes all of a wide layer, where nothing spoils the rounds."""
    wide = model_of(network(4, 400, 400, 1))
    mask, scores = Pruning(score="synflow").mask(wide, 0.002), SCORES["synflow"](wide, 1.0, 0)
    assert all(mask.kept(name) for name in wide.params)
    least = torch.cat([s.flatten() for s in scores.values()]).sort().values[-mask.count]
    assert not all((s >= least).any() for s in scores.values())


def test_a_pull_moves_the_model_by_itself():
    """Kills: packed values that the model sees only when something else is added to them."""
    m = model()
    start = m.params.snapshot()
    packed = Kept(m.params, Pruning(score="magnitude").mask(m, 0.3))
    packed.anchor = {name: torch.zeros_like(t) for name, t in packed.items()}
    packed.pull_(1.0)
    for name, t in m.params.items():
        expected = start[name].flatten()
        expected[packed.mask.indices(name)] = 0.0
        assert torch.equal(t.flatten(), expected)


@pytest.mark.parametrize("how", [{"scope": "layer"}, {"largest": False}], ids=str)
def test_a_competition_that_pruning_rounds_would_spoil_gets_one_pass(how):
    """Kills: quotas and smallest scores that are filled with what SynFlow's rounds had set to zero."""
    m = synaptic()
    scores = SCORES["synflow"](m, 1.0, 0)
    assert all((s > 0).any() for s in scores.values())
    mask = Pruning(score="synflow", **how).mask(UserModel(m), 0.05)
    for name, score in scores.items():
        rank = score.flatten() if how.get("largest", True) else -score.flatten()
        mine = mask.indices(name)
        if how == {"scope": "layer"}:
            assert sorted(mine.tolist()) == sorted(rank.argsort(descending=True, stable=True)[: len(mine)].tolist())
    kept = torch.cat([scores[name].flatten()[mask.indices(name)] for name in scores])
    if how == {"largest": False}:
        assert kept.max() <= torch.cat([s.flatten() for s in scores.values()]).sort().values[len(kept) - 1]


def test_refusals():
    bads = [{"score": "hessian"}, {"scope": "row"}, {"strategy": "often"}, {"largest": "no"}, {"largest": 1}]
    bads += [{"must_train": names} for names in ("2.bias", ["2.bias"], (2,))]
    bads += [{"seed": seed} for seed in ("a", 1.0, True, -1)]
    for bad in [*bads, *({"weights": weights} for weights in [(1.0, 0.0), (1.0,), (), 1.0])]:
        with pytest.raises(Refusal):
            Pruning(**bad)
    with pytest.raises(Refusal, match=r"must_train that match"):
        Pruning(score="magnitude", must_train=("bias",)).mask(model(), 0.5)
    with pytest.raises(Refusal, match=r"none of its 3 coordinates"):
        Pruning(score="magnitude", must_train=("b",)).mask(Bare({"a": torch.ones(9), "b": torch.zeros(3)}), 0.1)
    for strategy in ("dynamic", "incremental"):  # whose later masks nobody can foresee
        with pytest.raises(Refusal, match='static" or scope "layer'):
            Pruning(score="magnitude", strategy=strategy, must_train=("b",))
        layers = Pruning(score="magnitude", scope="layer", strategy=strategy, must_train=("*",))
        assert layers.mask(model(), 1e-9).count == 3
    for wrong in (math.nan, math.inf):
        with pytest.raises(Refusal, match="finite scores"):
            Pruning(score="magnitude").mask(Bare({"b": torch.ones(2), "a": torch.tensor([1.0, wrong, 2.0, 3.0])}), 0.5)
    assert set(SCORES) == {"synflow", "magnitude", "random", "zo-grasp", "authors"}


def test_the_digest_names_the_coordinates_and_their_weights():
    """Kills: a digest of the places within runs alone, of the counts alone, without names or without weights."""

    def told(at, name="a", weights=None):
        return Mask({name: torch.tensor(at)}, weights and {name: torch.tensor(weights)}).digest

    others = [[1, 70_001], [1, 70_000 - 2**16], [1], [0, 70_000]]
    digests = [told([1, 70_000]), *map(told, others), told([1, 70_000], "b"), told([1, 70_000], weights=[1.0, 1.0])]
    assert len({*digests, told([1, 70_000], weights=[1.0, 0.5])}) == len(digests) + 1
    assert told([1, 70_000]) == digests[0]
