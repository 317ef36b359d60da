"""That a record's loss is its own: what is refused at sight, and a check of what a model really does."""

from typing import Any

import numpy as np
import torch
from torch import nn

from dpzo.errors import Refusal
from dpzo.types import Indices, LossModel, Records

_ROUNDING = 1e-4  # the largest change, relative to a loss beyond 1, that rounding in float32 may explain

COUPLED = (
    "A record's loss may change by rounding (about 1e-7 of it in float32) with the other records of its batch, because "
    "kernels sum in an order that depends on the batch's shape; the sensitivity does not cover this."
)


def couples_records(model: LossModel) -> str | None:
    """Return what a privacy statement must say of the model's losses; None: each is its record's own, bit for bit."""
    told: str | None = getattr(model, "couples_records", COUPLED)
    return told


def refuse_coupling(module: nn.Module) -> None:
    """Refuse layers that let one record's loss depend on the other records of its batch.

    Raises:
        Refusal: a batch norm without running statistics, or experts of limited capacity (records compete for them).
    """
    for name, layer in module.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is None:
            raise Refusal("layers that treat each record on its own", f"{name}, a batch norm", "Replace that layer.")
        config = getattr(layer, "config", None)
        if capacity := limited_capacity(config):
            raise Refusal(
                "layers that treat each record on its own",
                f"experts that drop tokens beyond a capacity ({capacity} in the configuration)",
                "Take a model whose router drops no token, such as Mixtral's kind.",
            )


def limited_capacity(config: Any) -> str | None:
    """Return the name of the setting by which experts drop tokens, None where there is none."""
    for name in ("expert_capacity", "capacity_factor", "moe_capacity_factor", "eval_capacity_factor"):
        if getattr(config, name, None):
            return name
    return "moe_token_dropping" if getattr(config, "moe_token_dropping", False) else None


def routes(config: Any) -> bool:
    """Whether tokens go to experts: each expert then sees a number of rows that the whole batch decides."""
    names = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "num_experts_per_tok")
    return any((getattr(config, name, None) or 0) > 1 for name in names)


def size_of(records: Records) -> int:
    """Return the number of records; dicts and tuples hold one tensor or array for each field."""
    if isinstance(records, dict):
        records = tuple(records.values())
    return size_of(records[0]) if isinstance(records, tuple) else len(records)


def pick(records: Records, rows: Indices) -> Records:
    """Return the records of these numbers, in this order."""
    if isinstance(records, dict):
        return {name: pick(field, rows) for name, field in records.items()}
    if isinstance(records, tuple):
        fields = [pick(field, rows) for field in records]
        return type(records)(*fields) if hasattr(records, "_fields") else tuple(fields)
    if isinstance(records, torch.Tensor):
        return records[torch.from_numpy(rows).to(records.device)]
    picked = records[rows]
    if isinstance(picked, np.ndarray) and picked.dtype.kind in "fiub":
        # torch's memory begins at multiples of 64 bytes, numpy's anywhere, and kernels sum by alignment too.
        return torch.from_numpy(picked).clone().numpy()
    return picked


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
    every, exact = np.arange(n), couples_records(model) is None
    groups = [every, every[::-1].copy(), every[: n // 2], every[n // 2 :], np.repeat(every, 2), *every[:, None]]
    first, worst = _losses(model, records, every), 0.0
    for rows in groups:
        now, own = _losses(model, records, rows), first[rows]
        same = (now == own) | (np.isnan(now) & np.isnan(own))
        with np.errstate(invalid="ignore"):
            change = np.where(same, 0.0, np.abs(now - own))
        worst = max(worst, float(np.nan_to_num(change, nan=np.inf).max()))
        bound = 0.0 if exact else _ROUNDING * np.maximum(np.abs(own), 1.0)
        if not (change <= bound).all():
            raise Refusal(
                "losses that are each record's own",
                f"one that changes by {worst:.2g} with the other records of its batch",
                "Use no layer and no loss that looks across records (batch statistics, a mean over the batch).",
            )
    return worst


def _losses(model: LossModel, records: Records, rows: Indices) -> Any:
    losses = model.losses(pick(records, rows)).double().cpu().numpy()
    if losses.shape != rows.shape:
        raise Refusal(f"one loss for each of {len(rows)} records", f"shape {losses.shape}", "Take no mean over them.")
    return losses
