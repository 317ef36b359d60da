"""That a record's loss is its own: what is refused at sight, and a trial of what a model really does."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from dpzo.errors import Refusal
from dpzo.records import made_up, pick, shape_of, size_of
from dpzo.types import Floats, Indices, LossModel, Records

_ROUNDING = 1e-4  # the largest change, relative to a loss beyond 1, that rounding in float32 may explain
_ROWS = 4  # made-up records of a trial
_CAPACITIES = ("expert_capacity", "capacity_factor", "moe_capacity_factor", "eval_capacity_factor")
_DROPPING = ("moe_token_dropping", *_CAPACITIES)

COUPLED = (
    "A record's loss may change by rounding (about 1e-7 of it in float32) with the other records of its batch, because "
    "kernels sum in an order that depends on the batch's shape; the sensitivity does not cover this."
)


def coarsest(module: nn.Module) -> torch.dtype:
    """The type of the module's weights that rounds the most."""
    kinds = {t.dtype for t in module.parameters() if t.is_floating_point()}
    return max(kinds, key=lambda kind: torch.finfo(kind).eps, default=torch.float32)


def coupled(module: nn.Module) -> str:
    """``COUPLED``, in the words for the module's types."""
    kind = coarsest(module)
    if kind.itemsize >= 4:
        return COUPLED
    name, spacing = str(kind).removeprefix("torch."), torch.finfo(kind).eps
    return COUPLED.replace("1e-7 of it in float32", f"{spacing:.0e} of it in {name}, the type of some weights")


def couples_records(model: Any) -> str | None:
    """Return what a model says of its losses, for a statement; None: each is its record's own, bit for bit."""
    told: str | None = getattr(model, "couples_records", COUPLED)
    return told


def arithmetic(like: torch.Tensor) -> object:
    """What decides which kernels compute, beside shapes: verdicts about kernels hold for one of these."""
    fast = torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled()
    return torch.get_num_threads(), like.dtype, like.device, *fast, torch.backends.mkldnn.enabled


def refuse_coupling(module: nn.Module) -> None:
    """Refuse layers that let one record's loss depend on the other records of its batch, or that write their weights.

    Raises:
        Refusal: a batch norm without running statistics, experts of limited capacity (records compete for them), or an
            embedding that rescales the rows it is asked for.
    """
    for name, layer in module.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is None:
            raise Refusal("layers that treat each record on its own", f"{name}, a batch norm", "Replace that layer.")
        if getattr(layer, "max_norm", None) is not None and isinstance(layer, nn.Embedding | nn.EmbeddingBag):
            raise Refusal(
                "layers that leave their weights as they are",
                f"{name or 'an embedding'}, whose max_norm rescales the rows of the tokens that it sees",
                "Rescale all rows once, and set max_norm = None: the weights would tell which tokens there are.",
            )
        if capacity := limited_capacity(getattr(layer, "config", None)):
            raise Refusal(
                "layers that treat each record on its own",
                f"experts that drop tokens beyond a capacity ({capacity} in the configuration)",
                "Take a model whose router drops no token, such as Mixtral's kind.",
            )


def limited_capacity(config: Any) -> str | None:
    """Return the name of the setting by which experts drop tokens, None where there is none."""
    return next((name for name, value in _settings(config) if name in _DROPPING and value), None)


def routes(config: Any) -> bool:
    """Whether tokens go to experts: each expert then sees a number of rows that the whole batch decides."""
    numbers = [value for name, value in _settings(config) if "experts" in name]
    each = [one for value in numbers for one in (value if isinstance(value, list | tuple) else [value])]
    return any(isinstance(one, int) and one > 1 for one in each)


def _settings(config: Any, depth: int = 3) -> Iterator[tuple[str, Any]]:
    # Of a configuration and those inside it: DBRX keeps its experts in one for its feed-forward parts.
    told = config if isinstance(config, Mapping) else getattr(config, "__dict__", {})
    for name, value in told.items():
        yield str(name), value
        if depth and (isinstance(value, Mapping) or str(name).endswith("config")):
            yield from _settings(value, depth - 1)


def check_independence(model: LossModel, records: Records) -> float:
    """Evaluate public or made-up ``records`` among other mates; return the largest change of a loss.

    The records are computed all at once, backwards, by halves, each twice, and each alone. A model that promises
    independence bit for bit must keep every loss to the bit; another within rounding.

    Raises:
        Refusal: fewer than two records, or a loss that changes by more.
    """
    n = size_of(records)
    if n < 2:
        raise Refusal("at least two records to check independence", n, "Give some more; they need not be private.")
    every = np.arange(n)
    groups = [every, every[::-1].copy(), every[: n // 2], every[n // 2 :], np.repeat(every, 2), *every[:, None]]
    return _changed(model, lambda rows: pick(records, rows), n, groups)


Maker = Callable[[Sequence[int]], Records]
"""Numbers of made-up records -> these."""


def trial(model: LossModel, like: Records) -> tuple[Maker | None, str]:
    """``check_independence`` on made-up records in the form of ``like``.

    Return what made them, or None and why no such trial could be made. A model that knows better what its records may
    hold has a method ``made_up(rows)``; ``made_up = None`` forgoes the trial.

    Raises:
        Refusal: as ``check_independence``.
    """
    narrow: Maker = partial(made_up, like)  # numbers in (0, 1), for probabilities; then others
    own: Maker | None = getattr(model, "made_up", narrow)
    if own is None:
        return None, f"{type(model).__name__} has made_up = None, so there are no records to try it on."
    makers = [own]
    if own is narrow:
        wide = re.search("float|list", str(shape_of(like))) is not None
        makers += [partial(made_up, like, spread=8.0)] * wide + [partial(made_up, like, least=1)]
    why, every = "", np.arange(_ROWS)
    groups = [every[::-1].copy(), every[: _ROWS // 2], *every[:, None]]
    tried: list[Maker] = []
    for make in makers:
        if tried and make is makers[-1]:
            break  # labels from 1 on are for a loss that takes no 0
        try:
            _changed(model, partial(_of_rows, make), _ROWS, groups)
        except Refusal:
            raise
        except Exception as error:  # made-up values that this loss cannot take, in whatever way it says so
            why = type(error).__name__
        else:
            tried.append(make)
    if tried:
        return tried[0], ""
    return None, f"made-up records could not be evaluated ({why}): give the model a made_up(rows) that makes some."


def _of_rows(make: Maker, rows: Indices) -> Records:
    return make(rows.tolist())


def _changed(model: LossModel, records: Callable[[Indices], Records], n: int, groups: Sequence[Indices]) -> float:
    exact = couples_records(model) is None
    network = getattr(model, "network", None)
    rounding = max(_ROUNDING, 8 * torch.finfo(coarsest(network)).eps) if isinstance(network, nn.Module) else _ROUNDING
    first, worst = _losses(model, records, np.arange(n)), 0.0
    for rows in groups:
        now, own = _losses(model, records, rows), first[rows]
        same = (now == own) | (np.isnan(now) & np.isnan(own))
        with np.errstate(invalid="ignore"):
            change = np.where(same, 0.0, np.abs(now - own))
        worst = max(worst, float(np.nan_to_num(change, nan=np.inf).max()))
        bound = 0.0 if exact else rounding * np.maximum(np.abs(own), 1.0)
        if not (change <= bound).all():
            raise Refusal(
                "losses that are each record's own",
                f"one that changes by {worst:.2g} with the other records of its batch",
                "Use no layer and no loss that looks across records (batch statistics, a mean over the batch).",
            )
    return worst


def _losses(model: LossModel, records: Callable[[Indices], Records], rows: Indices) -> Floats:
    losses: Floats = model.losses(records(rows)).double().cpu().numpy()
    if losses.shape != rows.shape:
        raise Refusal("one loss for each record of the batch", f"shape {losses.shape}", "Take no mean over the batch.")
    return losses
