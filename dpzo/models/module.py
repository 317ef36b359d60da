"""Any torch module with a loss for each record."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dpzo.errors import Refusal
from dpzo.models.independence import COUPLED, pick, refuse_coupling, size_of
from dpzo.models.shapes import filled, rows_of, treats_rows_alike
from dpzo.parameters import Parameters
from dpzo.types import Records


class ModuleModel:
    """A torch module in eval mode; ``loss(module, records)`` gives shape (b,).

    ``trainable`` names the parameters to train, all of them by default. Without ``physical_batch_size`` the batch is
    evaluated as it comes, and kernels may couple its records by about 1e-7 of a loss, which the privacy statement
    names. With it, records (a tensor or array, a dict or tuple of them, or anything with a length that index arrays
    pick from) are evaluated in blocks of exactly that many rows, and a loss is its record's own, bit for bit: by
    construction for 1; for more, as far as made-up records of the same shape tell (``check_independence`` tells more).
    Where these are not treated alike, or cannot be made up, records are evaluated one at a time.

    ``data_free(module)`` gives the sum of the module's outputs on a made-up public input, such as
    ``lambda module: module(torch.ones(1, 10)).sum()``; scores for pruning that look at outputs need it. Where they
    compute in float64, what the module is called with is cast to that.

    Raises:
        Refusal: a name that the module does not have, or a layer that lets one record's loss depend on the others.
    """

    def __init__(
        self,
        module: nn.Module,
        loss: Callable[[Any, Records], Tensor],
        trainable: Iterable[str] | None = None,
        *,
        physical_batch_size: int | None = None,
        data_free: Callable[[Any], Tensor] | None = None,
    ) -> None:
        module.eval()
        refuse_coupling(module)
        named = dict(module.named_parameters())
        names = list(named) if trainable is None else list(trainable)
        if unknown := [name for name in names if name not in named]:
            raise Refusal("names of the module's parameters", unknown, f"It has {', '.join(named)}.")
        self.module, self.loss, self._data_free = module, loss, data_free
        self.physical_batch_size = None if physical_batch_size is None else rows_of(physical_batch_size)
        self.params = Parameters({name: named[name] for name in names})
        self._rows: dict[object, int] = {}

    @property
    def couples_records(self) -> str | None:
        """What the privacy statement must say; None: each loss is its record's own, bit for bit."""
        return COUPLED if self.physical_batch_size is None else None

    @property
    def network(self) -> nn.Module:
        """The module, whose weights ``data_free`` is a function of."""
        return self.module

    def data_free(self, *, one_token: bool = False) -> Tensor:
        """(): the sum of the outputs on the made-up input; ``one_token`` means something to language models alone.

        Raises:
            Refusal: none was given, or it is not a single number.
        """
        if self._data_free is None:
            raise Refusal(
                "a module with a data-free output",
                "none",
                "Give ModuleModel data_free=, such as lambda module: module(torch.ones(1, 10)).sum().",
            )
        hook = self.module.register_forward_pre_hook(_cast, with_kwargs=True)
        try:
            output = self._data_free(self.module)
        finally:
            hook.remove()
        if output.ndim:
            raise Refusal("a data-free output of shape ()", f"shape {tuple(output.shape)}", "Sum the outputs.")
        return output

    def losses(self, records: Records) -> Tensor:
        """(b,) losses at the current parameters.

        Raises:
            Refusal: a loss that is not one number for each record.
        """
        with torch.inference_mode():
            if self.physical_batch_size is None or not (count := size_of(records)):
                return self._block(records)
            blocks = filled(np.arange(count), self._rows_for(records, self.physical_batch_size))
            return torch.cat([self._block(pick(records, rows))[:real] for rows, real in blocks])

    def _block(self, records: Records) -> Tensor:
        losses = self.loss(self.module, records)
        if losses.ndim != 1:
            raise Refusal(
                "one loss for each record, shape (b,)",
                f"shape {tuple(losses.shape)}",
                'Use reduction="none" and take each record\'s own mean.',
            )
        return losses

    def _rows_for(self, records: Records, most: int) -> int:
        # By the records' public shape alone: the values of a private record must not decide how others are computed.
        shape = _shape(records)
        if shape not in self._rows:
            try:
                fits = treats_rows_alike(lambda trials: self._block(_made_up(records, trials)), most, trials=16)
            except (TypeError, ValueError, RuntimeError, IndexError, KeyError, AttributeError):
                fits = False  # made-up values that this loss cannot take
            self._rows[shape] = most if fits else 1
        return self._rows[shape]


def _cast(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, Any]:
    kind = next(t.dtype for t in module.parameters() if t.is_floating_point())

    def cast(value: Any) -> Any:
        return value.to(kind) if isinstance(value, Tensor) and value.is_floating_point() else value

    return tuple(map(cast, inputs)), {name: cast(value) for name, value in named.items()}


def _shape(records: Records) -> object:
    if isinstance(records, dict):
        return tuple((name, _shape(field)) for name, field in records.items())
    if isinstance(records, tuple):
        return tuple(map(_shape, records))
    return (str(records.dtype), tuple(records.shape[1:])) if isinstance(records, Tensor | np.ndarray) else type(records)


def _made_up(records: Records, trials: Sequence[int]) -> Records:
    """Records of this shape: numbers between 0 and 1, whole numbers 0 and 1."""
    if isinstance(records, dict):
        return {name: _made_up(field, trials) for name, field in records.items()}
    if isinstance(records, tuple):
        fields = [_made_up(field, trials) for field in records]
        return type(records)(*fields) if hasattr(records, "_fields") else tuple(fields)
    if isinstance(records, np.ndarray):
        return _made_up(torch.from_numpy(records), trials).numpy()
    if not isinstance(records, Tensor):
        raise TypeError(type(records).__name__)
    count = records[:1].numel()
    wave = (torch.tensor(trials)[:, None] + 1) * torch.arange(count)
    values = wave.sin() / 2 + 0.5 if records.is_floating_point() else wave % 2
    return values.to(records).view(len(trials), *records.shape[1:])
