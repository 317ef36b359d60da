"""How important each trained coordinate is, told from the weights alone: no data enter, so a score costs no privacy.

A score is a dict: for each trained tensor one of its shape, float32, larger = more important. Under a change of
coordinates (``dpzo.models.rescaled``) the score of a coordinate is that of the weight that it moves.

All but ``magnitude`` and ``random`` look at R, the model's ``data_free()`` output: the sum of its outputs on a made-up
input. R is taken at the absolute values of all weights of the model's ``network``, trained or not, so that paths
through the network cannot cancel. The network is lent float64 copies of these; its own weights are never written.
float64, because R of a network without normalisation grows exponentially with its depth, which float32's 1e38 stops
after some 30 layers of width 1,000 and float64's 1e308 after some 200, and because R is differenced.

A model may have ``data_free_tail()`` besides: a function that gives R again and again while only what is trained
changes. A language model that trains nothing but what follows its last attention computes the rest once for it.

The same machine with the same thread count gives the same bits. ``random`` and ``magnitude`` are the same everywhere;
sums in another order move the others by about 1e-15 of their size, or 1e-7 where a network computes parts of itself in
float32 whatever its weights are (Llama's norms), so that another machine may swap coordinates that are that close.
A step names the mask that it moved along (``Step.mask``), so a replay that would move others is refused.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor

from dpzo.directions import Drawn, GaussianDirection, seeds_of
from dpzo.errors import Refusal
from dpzo.kernels.philox import philox
from dpzo.parameters import Parameters

Scores = dict[str, Tensor]
Output = Callable[[], Tensor]
_BLOCK = 2**18  # coordinates scored at random at once
_HELD = 2**24  # normals of a score's directions that are kept: 64 MiB


def magnitude(model: Any) -> Scores:
    """|theta|: what is small already is missed least."""
    return {name: t.detach().abs().float() for name, t in _placed(model).params.items()}


def random(model: Any, seed: int) -> Scores:
    """Uniform on [0, 1), the control: a function of (seed, name of the tensor, coordinate), on any device the same.

    24 bits of a Philox word each; integers, so no device rounds them its own way.
    """
    return {name: _uniform(t, _key(f"random {name}", seed)) for name, t in model.params.items()}


def synflow(model: Any, keep: float, rounds: int = 100) -> Scores:
    """| |theta| * dR/d|theta| |, in ``rounds`` rounds that prune down to the share ``keep`` of the coordinates.

    After round k the best ``keep ** (k / rounds)`` stay (with their ties); the others are 0 in the network's copy from
    then on, and in the score. The largest score is 1: only ratios mean something. ``keep`` = 1 takes a single pass.

    In a network where R is of degree one in each layer's weights (linear maps and ReLU, no bias), the scores of a layer
    sum to R, whichever the layer, and so no layer is pruned whole before the others. Normalisation and softmax break
    this law: there derivatives are negative as well, and it is their size that counts.

    A round is a forward and a backward pass. Memory: 8 bytes for each weight, and about 24 for each trained one.

    Raises:
        Refusal: ``keep`` outside (0, 1], fewer than one round, a model without a data-free output, or one whose output
            or derivatives are not finite.

    Source: Tanaka et al. 2020, "Pruning neural networks without any data by iteratively conserving synaptic flow";
    the exponential schedule, and the size of the derivative instead of its value, as in their code.
    """
    if not 0 < keep <= 1:
        raise Refusal("keep in (0, 1], the share of the coordinates that stay", keep, "Choose 1 for all.")
    if rounds < 1:
        raise Refusal("at least one round", rounds, "Take 100, as the authors do.")
    real, stale = _placed(model), True
    scores: Scores = {}
    with torch.inference_mode(False), torch.enable_grad(), _linearised(real) as (weights, R):
        for k in range(1, rounds + 1):
            scores = _flow(R, weights) if stale else scores
            stale = _prune(weights, scores, math.ceil(keep ** (k / rounds) * real.params.count))
    return scores


def zo_grasp(model: Any, seed: int, mu: float = 1e-3, queries: int = 16) -> Scores:
    """|theta| * Hg by forward passes alone: half of what removing a coordinate takes from R's squared gradient.

    g and H are R's gradient and Hessian in the trained coordinates. GraSP's score is the negative of this, and keeps
    the smallest. v, an estimate of g from ``queries`` directions y, is followed by z * z'Hv averaged over ``queries``
    other directions z, with z'Hv a second difference: both of its slopes are along the same z. y and z are independent,
    so the estimate's mean is Hg, up to mu^2. Its relative error goes as sqrt(d / queries): with far fewer queries than
    coordinates this is a magnitude times noise, too. A network that computes parts of itself in float32 adds R's own
    rounding over mu^2: in a trial with SmolLM2 at mu = 1e-3 that was a hundred times z'Hv, so there the score is noise.
    It takes 6 * ``queries`` forward passes and 44 bytes for each trained coordinate.

    Raises:
        Refusal: as for ``synflow``.

    Source: Wang et al. 2020 (GraSP), with zeroth-order differences and without data; this estimator is ours.
    """
    real = _placed(model)
    with torch.no_grad(), _linearised(real) as (weights, R):
        at = Parameters(weights)
        x, v, product = at.snapshot(), _zeros(at), _zeros(at)
        ys, zs = _directions(at, "zo-grasp", seed, queries)
        for y in ys:
            y.add_(v, _difference(R, at, y, mu) / (2 * mu * queries))
        length = math.sqrt(math.fsum(float(t.square().sum()) for t in v.values()))
        step = mu * math.sqrt(at.count) / length if length else mu  # as far along v as along z
        bends = [0.0] * queries
        for side in (step, -step):
            for name, t in weights.items():
                torch.add(x[name], v[name], alpha=side, out=t.data)
            for k, z in enumerate(zs):
                bends[k] += _difference(R, at, z, mu) / (4 * mu * side)
        for z, bend in zip(zs, bends, strict=True):
            z.add_(product, bend / queries)
    return {name: (x[name] * product[name]).float() for name in x}


def authors(model: Any, seed: int, mu: float = 1e-3, queries: int = 1) -> Scores:
    """What the code of DP-ZOPO's authors computes: in effect |theta| times noise. For fidelity, not for use.

    Its input is one token, so that attention has nothing to choose from and queries and keys cannot matter. The change
    of R's estimated gradient along itself is taken between fresh directions, and divided by mu: the two estimates'
    errors, which are sqrt(d / queries) times the gradient, bury the change. They keep the coordinates of the SMALLEST
    |score|. Their arithmetic is float32.

    Raises:
        Refusal: as for ``synflow``.

    Source: Liu et al. 2024, as in their code (src/prune.py); their paper may differ.
    """
    real = _placed(model)
    with torch.no_grad(), _linearised(real, one_token=True) as (weights, R):
        at = Parameters(weights)
        x, change = at.snapshot(), _zeros(at)
        first, second = _directions(at, "authors", seed, queries)
        moves = [_difference(R, at, z, mu) / 2 for z in first]
        for z, r in zip(first, moves, strict=True):
            z.add_(weights, mu * r / queries)
            z.add_(change, -r / (mu * queries))
        for z in second:
            z.add_(change, _difference(R, at, z, mu) / (2 * mu * queries))
    return {name: (x[name] * change[name]).float() for name in x}


SCORES: dict[str, Callable[[Any, float, int], Scores]] = {
    "synflow": lambda model, keep, seed: synflow(model, keep),
    "magnitude": lambda model, keep, seed: magnitude(model),
    "random": lambda model, keep, seed: random(model, seed),
    "zo-grasp": lambda model, keep, seed: zo_grasp(model, seed),
    "authors": lambda model, keep, seed: authors(model, seed),
}
"""name -> score of (model, the share that is to be kept, seed)."""


def _placed(model: Any) -> Any:
    # Below a change of coordinates, at its present point; a view by user may lie above it.
    while hasattr(model, "sync") or hasattr(getattr(model, "model", None), "sync"):
        model = model.sync() if hasattr(model, "sync") else model.model
    return model


@contextmanager
def _linearised(model: Any, *, one_token: bool = False) -> Iterator[tuple[dict[str, Tensor], Output]]:
    # Lends the network the absolute values of its weights, in float64; yields the trained ones by name, and R.
    if not hasattr(model, "data_free") or not hasattr(model, "network"):
        came = f"a {type(model).__name__}, which has none"
        raise Refusal("a model with a data-free output", came, 'Score it by "magnitude" or "random".')
    weights = [t for t in model.network.parameters() if t.is_floating_point()]
    buffers = [t for t in model.network.buffers() if t.is_floating_point()]
    home = [(t, t.data, t.requires_grad) for t in (*weights, *buffers)]
    try:
        for t in weights:
            t.data = t.data.double().abs()
        for t in buffers:
            t.data = t.data.double()
        yield dict(model.params), _output(model, one_token)
    finally:
        for t, data, wants_grad in home:
            t.data = data
            t.requires_grad_(wants_grad)


def _output(model: Any, one_token: bool) -> Output:
    # R at what is trained as it is at each call. All else stands still, and a model may make use of that.
    tail = getattr(model, "data_free_tail", None)
    output = partial(model.data_free, one_token=one_token) if tail is None else tail(one_token=one_token)

    def finite() -> Tensor:
        R: Tensor = output()
        if not math.isfinite(R.item()):
            raise Refusal("a finite data-free output", R.item(), "Make up a smaller input: only ratios count.")
        return R

    return finite


def _flow(output: Output, weights: Mapping[str, Tensor]) -> Scores:
    for t in weights.values():
        t.requires_grad_(True)
    R = output()
    if not R.requires_grad:
        raise Refusal("a data-free output that depends on what is trained", "one that does not", "Do not detach it.")
    slopes = torch.autograd.grad(R, list(weights.values()), allow_unused=True, materialize_grads=True)
    flows = [s.mul_(t.data).abs_() for s, t in zip(slopes, weights.values(), strict=True)]
    most = max(float(flow.max()) for flow in flows)
    if not math.isfinite(most):
        raise Refusal("finite derivatives of the data-free output", most, "Make up a smaller input.")
    return {name: flow.div_(most or 1.0).float() for name, flow in zip(weights, flows, strict=True)}


def _prune(weights: Mapping[str, Tensor], scores: Scores, count: int) -> bool:
    # Whether anything fell. Ties stay, wherever they are in the network.
    flat = torch.cat([score.flatten() for score in scores.values()])
    flat = flat[flat > 0]
    if len(flat) <= count:
        return False
    least = torch.kthvalue(flat, len(flat) - count + 1).values
    for name, score in scores.items():
        weights[name].data.masked_fill_(score < least, 0)
        score.masked_fill_(score < least, 0)
    return True


def _key(kind: str, seed: int) -> int:
    # Of their own kind: a score shares no normal with a step's direction of the same seed.
    return int.from_bytes(blake2b(f"dpzo score {kind} / {seed}".encode(), digest_size=8).digest(), "little")


def _uniform(like: Tensor, key: int) -> Tensor:
    flat = torch.empty(-(-like.numel() // 4), 4, device=like.device)
    halves = [torch.tensor(half, device=like.device) for half in (key & 0xFFFFFFFF, key >> 32, 0)]
    for start in range(0, len(flat), _BLOCK // 4):
        block = flat[start : start + _BLOCK // 4]
        index = torch.arange(start, start + len(block), device=like.device)
        words = philox((index & 0xFFFFFFFF, index >> 32, halves[2], halves[2]), (halves[0], halves[1]))
        block.copy_((torch.stack(words, 1) >> 8).float() * 2.0**-24)
    return flat.view(-1)[: like.numel()].view(like.shape)


def _zeros(at: Parameters) -> dict[str, Tensor]:
    return {name: torch.zeros_like(t) for name, t in at.items()}


def _directions(at: Parameters, kind: str, seed: int, queries: int) -> tuple[list[Drawn], list[Drawn]]:
    # Many long ones are drawn anew at each use: kept, they would take more memory than the network.
    seeds, hold = seeds_of(_key(kind, seed), 2 * queries), 2 * queries * at.count <= _HELD
    drawn = [GaussianDirection().draw(at, s, None, hold) for s in seeds]
    return drawn[:queries], drawn[queries:]


def _difference(R: Output, at: Parameters, u: Drawn, mu: float) -> float:
    # R(x + mu u) - R(x - mu u)
    with at.moved(u, mu):
        above = R()
    with at.moved(u, -mu):
        below = R()
    return float(above - below)
