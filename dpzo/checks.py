"""What is refused before a run's first charge, by looks at the process, the data, the model and the plan."""

import math
import os
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dpzo.errors import Refusal
from dpzo.independence import Maker
from dpzo.mechanisms import GRID, GaussianVectorMechanism, PlainSum
from dpzo.plan import Plan
from dpzo.records import size_of
from dpzo.types import Data
from dpzo.walk import Walk

_BLOCK = 2**18  # coordinates looked at once
_FARTHEST = 6.0  # standard deviations of a coordinate or a noise
_FEWEST = 0.01  # of the trained coordinates must be able to move


def refuse_ranks() -> None:
    """Refuse one of several processes."""
    if (ranks := os.environ.get("WORLD_SIZE", "1")).isdecimal() and int(ranks) > 1:
        raise Refusal(
            "a run in one process",
            f"WORLD_SIZE = {ranks}",
            "Start it once: every process would train on the same data, and each would spend the whole epsilon.",
        )


def refuse_unpickable(data: Data) -> None:
    """Refuse data that an array of indices cannot pick from."""
    few = np.arange(min(2, len(data)))
    kind = type(data).__name__
    ways = {
        "list": "Give a tensor, an array, what model.encode returns, or datasets.Dataset.from_list(records).",
        "DataLoader": "Give what it loads, its dataset: a run draws its batches itself.",
    }
    todo = ways.get(kind, "Wrap it: __getitem__ of an array returns default_collate([data[i] for i in indices]).")
    expected = "data that an array of indices picks records from"
    try:
        picked = data[few]
    except Exception as error:  # whatever a foreign __getitem__ raises
        raise Refusal(expected, f"a {kind}, which answers with {type(error).__name__}", todo) from None
    if isinstance(picked, Tensor | np.ndarray) and (not picked.ndim or len(picked) != len(few)):
        raise Refusal(expected, f"a {kind}, which returns another number of records", todo)


def layers_of(model: Any) -> Iterator[Any]:
    """The model and the models that it wraps."""
    seen: list[int] = []
    queue = [model]
    while queue:
        layer = queue.pop()
        if id(layer) not in seen:
            seen.append(id(layer))
            yield layer
            parts = getattr(layer, "__dict__", {}).values()
            queue += [part for part in parts if hasattr(part, "losses") and hasattr(part, "params")]


def networks_of(layer: Any) -> list[nn.Module]:
    """The modules that a model holds itself; not torch's losses, which act alike in both modes."""
    if isinstance(layer, nn.Module):
        return [layer]
    found: list[nn.Module] = []
    for part in getattr(layer, "__dict__", {}).values():
        several = part.values() if isinstance(part, Mapping) else part if isinstance(part, list | tuple) else [part]
        found += [one for one in several if isinstance(one, nn.Module) and not isinstance(one, nn.modules.loss._Loss)]
    return found


def refuse_stale(layer: Any) -> None:
    """Refuse trained parameters that are in no module of the model."""
    networks = networks_of(layer)
    own = {id(t) for network in networks for t in network.parameters()}
    stale = [name for name, t in layer.params.items() if isinstance(t, nn.Parameter) and id(t) not in own]
    if networks and stale:
        raise Refusal(
            "trained tensors that are the module's own",
            f"{stale[0]}" + (f" and {len(stale) - 1} more" if len(stale) > 1 else "") + ", which are not in it",
            "Wrap the module after its last change: what was assigned, copied or merged later is not trained.",
        )


def refuse_small_steps(plan: Plan, params: Mapping[str, Tensor]) -> None:
    """Refuse steps that the spacing of almost all weights swallows.

    A step moves a coordinate, at most, by the clipped mean's C and its noise, along an unlikely long u.
    """
    reach = 0.0
    for number, stage in enumerate(plan.stages):
        mechanism = plan.mechanism_of(number)
        if isinstance(mechanism, PlainSum):
            return  # without a clip nothing bounds a step
        K, length = mechanism.directions, 1.0
        if isinstance(mechanism, GaussianVectorMechanism):  # C bounds the length of s u, not of s
            length = 1 / math.sqrt(sum(t.numel() for t in params.values()))
        noise = _FARTHEST * mechanism.noise_multiplier * math.sqrt(K) / plan.sampler.divisor(plan.n)
        far = _FARTHEST * stage.step_size * mechanism.clip_threshold
        reach = max(reach, far * (length + noise))
    moving, count = 0, 0
    for t in params.values():
        for block in torch.split(t.detach().reshape(-1), _BLOCK):
            moving += int(torch.count_nonzero(block + reach != block))
            count += len(block)
    if moving < _FEWEST * count:
        raise Refusal(
            "steps that can move the weights",
            f"{moving:,} of {count:,} that any step can reach: the others are spaced wider than step_size * C * 6",
            "Take a larger step_size (or C), or train in a finer type.",
        )


def refuse_still(walk: Walk, make: Maker) -> None:
    """Refuse trained tensors that move no loss of public records; warn where they move no release."""
    plan, records = walk.plan, make(range(4))
    u = plan.direction.draw(walk.params, 0, None, False)
    moves: list[Any] = []
    for radius in (plan.stages[0].zo_eps, 1.0):
        sides = []
        for side in (radius, -radius):
            with torch.no_grad(), walk.params.moved(u, side):
                sides.append(walk.losses(records).double().cpu().numpy())
        with np.errstate(invalid="ignore", over="ignore"):
            change = np.abs(sides[0] - sides[1])
        if not np.isfinite(change).any():
            return  # nothing can be told from these
        moves.append(np.nanmax(np.where(np.isfinite(change), change, 0.0)) / (2 * radius))
        if moves[-1]:
            break
    else:
        raise Refusal(
            "trained tensors that move the losses",
            "losses of made-up records that stay the same, to the bit, however these tensors move",
            "Train tensors that the loss uses, and call in the loss the module that was wrapped.",
        )
    mechanism = plan.mechanism_of(0)
    if not isinstance(mechanism, PlainSum | GaussianVectorMechanism) and moves[0] < mechanism.clip_threshold / GRID / 2:
        warnings.warn(
            f"No derivative of {size_of(records)} made-up records reaches half of C / 2**24, the grid of releases. If "
            "the data's are alike, each step is noise alone: check zo_eps, clip_threshold and the type of the weights.",
            stacklevel=2,
        )
