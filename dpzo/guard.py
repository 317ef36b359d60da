"""What a run must not change or see, looked at before the first charge and around every step.

At the call: one process, data that can be picked from, modules in evaluation mode, trained tensors that are the model's
own and steps that can move them. Before the first charge: the model's own check of all records, and a trial of its
independence on made-up public ones. At every step, before its charge: the modules and their tensors are the same and
still in evaluation mode. After it, before it is released: no frozen tensor was written to and no global random number
was drawn. A version counter does not see every write, so the frozen tensors' contents are compared too: after the first
step and the last, and in between as often as takes a hundredth of the time.
"""

import random
from contextlib import suppress
from operator import attrgetter, getitem, is_
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dpzo.checks import (
    layers_of,
    networks_of,
    refuse_ranks,
    refuse_small_steps,
    refuse_stale,
    refuse_still,
    refuse_unpickable,
)
from dpzo.errors import Refusal
from dpzo.independence import refuse_coupling, trial
from dpzo.types import Data
from dpzo.walk import Walk

_SHARE = 100  # the contents are compared when this many times what that takes has passed
_BLOCK = 2**18  # words of a tensor at once


class Guard:
    """Looks at the model and the data of one run; ``walk`` is its way, ``data`` its records.

    Raises:
        Refusal: a model or data that the run must not begin with.
    """

    def __init__(self, walk: Walk, data: Data) -> None:
        self.walk, self.data = walk, data
        refuse_ranks()
        refuse_unpickable(data)
        layers = list(layers_of(walk.model))
        for layer in layers:
            refuse_stale(layer)
        networks = [network for layer in layers for network in networks_of(layer)]
        for network in networks:
            refuse_coupling(network)
        named = [(name, module) for network in networks for name, module in network.named_modules()]
        self._names, self._modules = [name for name, _ in named], [module for _, module in named]
        self._refuse_training()
        refuse_small_steps(walk.plan, walk.params)
        trained = {id(t) for layer in layers for t in layer.params.values()}
        held = [
            (f"{prefix}{'.' if prefix else ''}{name}", place, name, part)
            for prefix, module in named
            if not isinstance(module, torch.jit.ScriptModule)  # it makes its tensors up at each look
            for place in (module._parameters, module._buffers, module._modules)
            for name, part in place.items()
        ]
        self._places, self._keys, self._parts = ([entry[k] for entry in held] for k in (1, 2, 3))
        frozen = {id(part): (name, part) for name, _, _, part in held if _readable(part)}
        self._frozen = [entry for key, entry in frozen.items() if key not in trained]
        self._counted = [t for _, t in self._frozen if not t.is_inference()]
        self._versions = list(map(attrgetter("_version"), self._counted))
        self._generators = [torch.default_generator]
        for index in sorted({t.device.index or 0 for t in walk.params.values() if t.device.type == "cuda"}):
            self._generators.append(torch.cuda.default_generators[index])
        self._contents: list[int] = []
        self._due, self._wait, self._closely = 0.0, 0.0, True  # the first step is looked at closely
        self._drawn: list[Any] = []

    def begin(self) -> None:
        """Try the model on public records, and its own check on all private ones; nothing is charged yet.

        Raises:
            Refusal: records that fail, losses that depend on other records or on nothing that is trained.
        """
        model: Any = self.walk.model
        if (check := getattr(model, "check_records", None)) is not None:
            check(self.data, self._passes())
        self._closely, self._drawn = True, self._random()
        with suppress(AttributeError):  # a model with __slots__ cannot be told
            model.untried = None
        try:
            make, why = trial(model, self.data[np.arange(1)])
        except Refusal:
            self._refuse_drawing()  # says more than that a loss changes
            raise
        self._refuse_drawing()
        if why:
            with suppress(AttributeError):
                model.untried = why
        if make is not None:
            refuse_still(self.walk, make)
        began = perf_counter()
        self._drawn = self._random()
        self._look()
        self._wait = _SHARE * (perf_counter() - began)

    def _passes(self) -> int:
        # How many records may be computed beforehand: a twentieth of what the run will compute, or a few hundred.
        plan = self.walk.plan
        run = 2 * plan.mechanism.directions * plan.steps * plan.sampler.divisor(plan.n)
        return max(256, int(run / 20))

    def before(self, last: bool) -> None:
        """Look before a step is charged; ``last``: it is the run's last one.

        Raises:
            Refusal: a module in training mode, or one that holds others, or other tensors, than when the run began.
        """
        self._refuse_training()
        try:
            same = all(map(is_, map(getitem, self._places, self._keys), self._parts))
        except KeyError:
            same = False
        if not same:
            raise Refusal(
                "a module that holds what it held when the run began",
                "one with other tensors or layers",
                "Change nothing of it during a run; this step was not charged.",
            )
        self._refuse_written("this step was not charged")
        now = perf_counter()
        self._closely = last or now >= self._due
        if self._closely:
            self._due = now + self._wait
        self._drawn = self._random()

    def after(self) -> None:
        """Look after a step, before it is released.

        Raises:
            Refusal: a frozen tensor that was written to, or a draw from a global generator.
        """
        self._refuse_drawing()
        self._refuse_written("this step is paid for and lost")
        if self._closely:
            self._look()

    def _refuse_training(self) -> None:
        if any(map(attrgetter("training"), self._modules)):
            names = [name or type(m).__name__ for name, m in zip(self._names, self._modules, strict=True) if m.training]
            raise Refusal(
                "modules in evaluation mode, where no record's loss depends on the others or on chance",
                f"{names[0]} in training mode" + (f", and {len(names) - 1} more" if len(names) > 1 else ""),
                "Call .eval() on the module, after the last .train().",
            )

    def _refuse_written(self, paid: str) -> None:
        now = list(map(attrgetter("_version"), self._counted))
        if now != self._versions:
            which = next(t for t, v, w in zip(self._counted, now, self._versions, strict=True) if v != w)
            self._refuse_change(next(name for name, t in self._frozen if t is which), paid)

    def _look(self) -> None:
        now = [_content(t) for _, t in self._frozen]
        if self._contents and now != self._contents:
            which = next(k for k, (a, b) in enumerate(zip(now, self._contents, strict=True)) if a != b)
            self._refuse_change(self._frozen[which][0], "the last step is paid for and lost")
        self._contents = now

    def _refuse_change(self, name: str, paid: str) -> None:
        raise Refusal(
            "frozen weights and buffers that stay as they are",
            f"{name}, which was written to",
            f"A layer that writes to its own tensors can keep private data in them: replace it; {paid}.",
        )

    def _random(self) -> list[Any]:
        # numpy's and Python's take longer to read, so they are looked at when the contents are.
        told: list[Any] = [generator.get_state().numpy().tobytes() for generator in self._generators]
        if self._closely:
            state: Any = np.random.get_state()
            told += [(state[1].tobytes(), *state[2:]), random.getstate()]
        return told

    def _refuse_drawing(self) -> None:
        if self._random() != self._drawn:
            raise Refusal(
                "losses that draw no random number from a global generator",
                "a forward pass, or a look into the data, that draws one",
                "Turn dropout and augmentation off: seeds and other records would decide a record's loss.",
            )


def _readable(part: Any) -> bool:
    return isinstance(part, Tensor) and part.layout == torch.strided and not part.is_meta and not part.is_quantized


def _content(tensor: Tensor) -> int:
    # Against accidents, not forgers: a sum of the bits in words, each times an odd number of its place.
    words = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    if rest := -len(words) % 8:
        words = torch.cat([words, words.new_zeros(rest)])
    elif words.storage_offset() % 8:
        words = words.clone()
    total = torch.zeros((), dtype=torch.int64, device=tensor.device)
    for number, block in enumerate(torch.split(words.view(torch.int64), _BLOCK)):
        total += (block * _factors(tensor.device)[: len(block)]).sum() * (2 * number + 1)
    return int(total)


_FACTORS: dict[torch.device, Tensor] = {}


def _factors(device: torch.device) -> Tensor:
    if device not in _FACTORS:
        place = torch.arange(1, _BLOCK + 1, dtype=torch.int64, device=device)
        _FACTORS[device] = (place * 0x1E3779B97F4A7C15) | 1  # it wraps, as is meant
    return _FACTORS[device]
