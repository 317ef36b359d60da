"""Scores for pruning: each against an independent computation, on weights that come back bit for bit, without data."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

import dpzo
from dpzo import scores
from dpzo.directions import GaussianDirection
from dpzo.models.module import ModuleModel
from dpzo.models.quadratic import Quadratic
from dpzo.models.rescaled import Rescaled
from dpzo.models.users import UserModel
from dpzo.scores import SCORES
from tests.chance import ALPHA, ks_p


def no_data(module, records):
    raise AssertionError("a score has looked at data")


def network(*widths, act=nn.ReLU, bias=False, size=0.5):
    """Linear layers of these widths with ``act`` between them, random weights of both signs."""
    draw = torch.Generator().manual_seed(0)
    layers = [nn.Linear(a, b, bias=bias) for a, b in pairwise(widths)]
    for layer in layers:
        for t in layer.parameters():
            t.data = torch.randn(t.shape, generator=draw) * size
    return nn.Sequential(*[part for layer in layers for part in (layer, act())][:-1])


def model_of(module, trainable=None):
    width = module[0].in_features
    return ModuleModel(module, no_data, trainable, data_free=lambda m: m(torch.ones(1, width)).sum())


def flows(weights):
    """SynFlow of a chain of non-negative matrices, written out: (ones W_L ... W_l+1)' (W_l-1 ... W_1 ones)' * W_l."""
    into = [np.ones(weights[0].shape[1])]
    for W in weights[:-1]:
        into.append(W @ into[-1])
    out = [np.ones(weights[-1].shape[0])]
    for W in weights[:0:-1]:
        out.insert(0, out[0] @ W)
    return [np.outer(o, i) * W for o, W, i in zip(out, weights, into, strict=True)]


def test_synflow_is_conserved_layer_by_layer():
    # Mutants: the signed weights (paths cancel); R's gradient without the weight; each layer scaled on its own.
    module = network(7, 12, 9, 4)
    got = scores.synflow(model_of(module), 1.0)
    wanted = flows([layer.weight.detach().double().abs().numpy() for layer in module[::2]])
    most = max(w.max() for w in wanted)
    for score, want in zip(got.values(), wanted, strict=True):
        assert score.dtype == torch.float32
        np.testing.assert_allclose(score.numpy(), want / most, rtol=1e-6)
    sums = [float(score.double().sum()) for score in got.values()]
    np.testing.assert_allclose(sums, sums[0], rtol=1e-6)


def test_synflow_prunes_as_its_authors_do():
    # Mutants: one round; a linear schedule; weights that stay in the copy when they are pruned.
    module, keep, rounds = network(7, 30, 9, 4), 0.1, 10
    got = scores.synflow(model_of(module), keep, rounds)
    weights = [layer.weight.detach().double().abs().numpy() for layer in module[::2]]
    count = sum(W.size for W in weights)
    for k in range(1, rounds + 1):
        flow = flows(weights)
        order = np.sort(np.concatenate([f.ravel() for f in flow]))[::-1]
        least = order[math.ceil(keep ** (k / rounds) * count) - 1]
        weights = [np.where(f >= least, W, 0.0) for f, W in zip(flow, weights, strict=True)]
    for score, W in zip(got.values(), weights, strict=True):
        assert np.array_equal(score.numpy() > 0, W > 0)
    assert sum(int((s > 0).sum()) for s in got.values()) == math.ceil(keep * count)


def test_rounds_keep_a_layer_that_a_single_one_loses():
    # Tanaka et al.'s reason to iterate: a wide layer's flow is spread thin, and one cut takes all of it.
    module = network(4, 400, 400, 1)
    model = model_of(module)
    once, often = (scores.synflow(model, 0.002, rounds) for rounds in (1, 100))
    assert min(int((s > 0).sum()) for s in once.values()) == 0
    assert min(int((s > 0).sum()) for s in often.values()) > 0


def test_frozen_weights_count_by_their_size_too():
    module = network(5, 6, 3)
    got = scores.synflow(model_of(module, ["0.weight"]), 1.0)
    want = flows([layer.weight.detach().double().abs().numpy() for layer in module[::2]])[0]
    assert list(got) == ["0.weight"]
    np.testing.assert_allclose(got["0.weight"].numpy(), want / want.max(), rtol=1e-6)


def test_a_deep_network_does_not_overflow():
    # R is about 1e90 here; a pass in float32 gives inf.
    got = scores.synflow(model_of(network(*[64] * 60)), 1.0)
    sums = [float(score.double().sum()) for score in got.values()]
    assert 0 < sums[0] < math.inf
    np.testing.assert_allclose(sums, sums[0], rtol=1e-5)


def at_absolute_weights(module):
    """(flat |theta|, R of a flat vector) in float64; R is built of the module's functions alone."""
    layers = [part for part in module if isinstance(part, nn.Linear)]
    act = next(part for part in module if not isinstance(part, nn.Linear))

    def R(flat):
        x, start = torch.ones(1, layers[0].in_features, dtype=torch.float64), 0
        for k, layer in enumerate(layers):
            W = flat[start : start + layer.weight.numel()].view(layer.weight.shape)
            x, start = (act(x) if k else x) @ W.T, start + W.numel()
        return x.sum()

    return torch.cat([layer.weight.detach().double().abs().flatten() for layer in layers]), R


def exact_grasp(module):
    """Hg of R at |theta|, by automatic differentiation, and |theta|."""
    theta, R = at_absolute_weights(module)
    return torch.autograd.functional.vhp(R, theta, torch.autograd.functional.jacobian(R, theta))[1], theta


def flat(score):
    return torch.cat([s.flatten() for s in score.values()]).double()


def test_zo_grasp_estimates_the_hessian_gradient_product():
    # The directions are fixed, so nothing is left to chance. Mutants: fresh directions in the second slope (no
    # correlation), GraSP's own sign, a factor 2, no division by mu or the step, v left out of the difference.
    module = network(2, 3, 2, act=nn.Tanh)
    Hg, theta = exact_grasp(module)
    got, want = flat(scores.zo_grasp(model_of(module), 0, queries=600)), theta * Hg
    assert np.corrcoef(got, want)[0, 1] > 0.95
    assert float(got @ want / (want @ want)) == pytest.approx(1, abs=0.2)


def test_few_queries_leave_zo_grasp_unbiased():
    # Mutant: y = z, whose mean is off by (tr H) g / queries; one query shows it best.
    module = network(1, 1, 1, act=nn.Tanh)
    Hg, theta = exact_grasp(module)
    model = model_of(module)
    mean = torch.stack([flat(scores.zo_grasp(model, seed, queries=1)) for seed in range(600)]).mean(0)
    torch.testing.assert_close(mean, theta * Hg, rtol=0, atol=0.05)


def test_the_authors_score_is_a_magnitude_times_noise():
    # At one query and at many; zo_grasp, whose slopes share their directions, sees Hg.
    module = network(20, 30, 10, 4, act=nn.Tanh, size=0.1)
    Hg, theta = exact_grasp(module)
    model, chance = model_of(module), stats.norm.isf(ALPHA / 2) / math.sqrt(len(theta) - 1)
    for queries in (1, 64):
        score = flat(scores.authors(model, 1, queries=queries))
        assert stats.spearmanr(score.abs(), theta).statistic > 0.5
        assert abs(stats.spearmanr(score / theta, Hg).statistic) < chance
    repaired = flat(scores.zo_grasp(model, 1, queries=512))
    assert stats.spearmanr(repaired / theta, Hg).statistic > chance


@pytest.mark.parametrize("queries", [1, 3])
def test_the_authors_score_line_by_line(queries):
    # Against their six lines on a flat vector, with the same directions. Mutants: a factor mu, fresh base point, sign.
    module, mu = network(3, 5, 4, act=nn.Tanh), 1e-2
    model, (theta, R) = model_of(module), at_absolute_weights(module)
    drawn = scores._directions(model.params, "authors", 5, queries)
    z1, z2 = ([flat(GaussianDirection().draw(model.params, z.seed).dense()) for z in half] for half in drawn)
    r1 = [(R(theta + mu * z) - R(theta - mu * z)) / 2 for z in z1]
    moved = theta + sum(z * r * mu for z, r in zip(z1, r1, strict=True)) / queries
    r2 = [(R(moved + mu * z) - R(moved - mu * z)) / 2 for z in z2]
    pairs = zip(z1, r1, z2, r2, strict=True)
    want = theta * sum(b * rb - a * ra for a, ra, b, rb in pairs) / queries / mu
    torch.testing.assert_close(flat(scores.authors(model, 5, mu, queries)), want, rtol=1e-5, atol=1e-6)


def test_magnitude():
    module = network(3, 4, 2)
    got = scores.magnitude(model_of(module))
    assert all(torch.equal(got[name], t.abs()) for name, t in module.named_parameters())


def test_random_is_uniform_and_a_function_of_seed_name_and_coordinate():
    # Mutants: one stream for all tensors; the blocks' counters begin anew; a normal law.
    params = {"a": torch.zeros(300_001), "b": torch.zeros(300_001)}

    def score(**tensors):
        class Holder:
            params = dpzo.parameters.Parameters(tensors)

        return scores.random(Holder(), 3)

    got = score(**params)
    assert score(a=torch.zeros(7))["a"].tolist() == got["a"][:7].tolist()
    assert not torch.equal(got["a"], got["b"])
    assert len(got["a"].unique()) > 0.97 * 300_001  # 24 bits: about 0.9 % collide
    for part in got.values():
        assert ks_p(part[:20_000], stats.uniform.cdf) > ALPHA
    assert got["a"][:3].tolist() == [0.2652357816696167, 0.6406718492507935, 0.4094196557998657]  # on any device


@pytest.mark.parametrize("name", SCORES)
def test_weights_come_back_and_no_data_is_touched(name):
    module = network(6, 8, 5, act=nn.Tanh, bias=True)
    module[0].bias.requires_grad_(False)
    before = {n: (t.detach().clone(), t.data_ptr(), t.requires_grad) for n, t in module.named_parameters()}
    model = model_of(module)
    first, second = (SCORES[name](model, 0.3, 1) for _ in range(2))
    for n, t in module.named_parameters():
        kept, place, wants_grad = before[n]
        assert torch.equal(t, kept)
        assert (t.data_ptr(), t.requires_grad, t.grad) == (place, wants_grad, None)
        assert first[n].shape == t.shape
        assert first[n].dtype == torch.float32
        assert torch.equal(first[n], second[n])
        assert not first[n].requires_grad
    with torch.inference_mode():
        assert all(torch.equal(s, first[n]) for n, s in SCORES[name](model, 0.3, 1).items())


@pytest.mark.parametrize("score", [scores.synflow, scores.zo_grasp, scores.authors])
@pytest.mark.parametrize("fails_at", [1, 2])
def test_weights_come_back_when_a_score_fails(score, fails_at):
    module, calls = network(3, 4, 2), []
    before = {n: t.detach().clone() for n, t in module.named_parameters()}

    def data_free(m):
        calls.append(1)
        if len(calls) == fails_at:
            raise MemoryError
        return m(torch.ones(1, 3)).sum()

    with pytest.raises(MemoryError):
        score(ModuleModel(module, no_data, data_free=data_free), 0.5)
    assert all(t.dtype == torch.float32 and torch.equal(t, before[n]) for n, t in module.named_parameters())


@pytest.mark.parametrize("name", SCORES)
def test_rescaled_coordinates_have_the_scores_of_the_weights_that_they_move(name):
    inner, plain = model_of(network(4, 5, 3, act=nn.Tanh)), model_of(network(4, 5, 3, act=nn.Tanh))
    rescaled = Rescaled(inner, {n: 1 + torch.arange(t.numel()).view(t.shape) for n, t in inner.params.items()})
    for n, t in rescaled.params.items():
        t.fill_(0.01)
        plain.params[n].data += rescaled.scale[n] * t
    for model in (rescaled, UserModel(rescaled)):  # kills: the magnitudes of displacements for those of weights
        for n, s in SCORES[name](model, 0.5, 2).items():
            assert torch.equal(s, SCORES[name](plain, 0.5, 2)[n])


def test_refusals():
    module = network(3, 4, 2)
    bare, whole = ModuleModel(module, no_data), model_of(module)
    quadratic = Quadratic(torch.ones(3), torch.tensor([1.0, -2.0, 0.0]))
    for score in (scores.synflow, scores.zo_grasp, scores.authors):
        with pytest.raises(dpzo.Refusal, match="data_free="):
            score(bare, 1)
        with pytest.raises(dpzo.Refusal, match="a Quadratic, which has none"):
            score(quadratic, 1)
        for value in (math.nan, math.inf):
            broken = ModuleModel(module, no_data, data_free=lambda m, v=value: m(torch.full((1, 3), v)).sum())
            with pytest.raises(dpzo.Refusal, match="finite data-free output"):
                score(broken, 1)
    assert scores.magnitude(quadratic)["x"].tolist() == [1, 2, 0]
    for keep in (0, 1.5, math.nan):
        with pytest.raises(dpzo.Refusal, match="keep"):
            scores.synflow(whole, keep)
    with pytest.raises(dpzo.Refusal, match="round"):
        scores.synflow(whole, 0.5, 0)
    apart = ModuleModel(module, no_data, data_free=lambda m: m(torch.ones(1, 3)).sum().detach())
    with pytest.raises(dpzo.Refusal, match="depends"):
        scores.synflow(apart, 0.5)
