"""Any torch module with a loss for each record."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dpzo.errors import Refusal
from dpzo.independence import arithmetic, coarsest, coupled, refuse_coupling, routes
from dpzo.models.shapes import filled, rows_of, treats_rows_alike
from dpzo.parameters import Parameters, chosen
from dpzo.records import made_up as made_up_like
from dpzo.records import pick, shape_of, size_of
from dpzo.types import Data, Indices, Records

_TRIALS = 16  # made-up records by which a shape is tried
_AT_ONCE = 256  # records looked at together before a run
_NAMED = 20  # failing records whose numbers are told


class ModuleModel:
    """A torch module in eval mode; ``loss(module, records)`` gives shape (b,).

    ``trainable`` holds patterns of parameter names (``*`` matches anything), all by default. Records are a tensor or
    array, a list with an entry for each, a mapping or tuple of these, or anything with a length that index arrays pick
    from. Without ``physical_batch_size`` the batch is evaluated as it comes, and kernels may couple its records by
    about 1e-7 of a loss, which the privacy statement names. With it they are evaluated in blocks of exactly that many
    rows, and a loss is its record's own, bit for bit: by construction for 1; for more, as far as made-up records of the
    same shape tell (``check_independence`` tells more). Where these are not treated alike, or cannot be made up, and in
    modules with experts, records are evaluated one at a time, and a warning says so.

    Weights in half precision lose the small differences that a step looks at. Where they are trained, the module is
    made float32, in place, along with what it is called with, and a warning says so.

    ``made_up(rows)`` gives public records with these numbers, where numbers between 0 and 1 (whole ones: 0, 1) in the
    form of the data are nothing that the loss takes: a run tries the model's independence on them.

    ``data_free(module)`` gives the sum of the module's outputs on a made-up public input, such as
    ``lambda module: module(torch.ones(1, 10)).sum()``; scores for pruning that look at outputs need it. Where they
    compute in float64, what the module is called with is cast to that.

    Raises:
        Refusal: a name that the module does not have, or a layer that lets one record's loss depend on the others.
    """

    made_up: Callable[[Sequence[int]], Records]

    def __init__(
        self,
        module: nn.Module,
        loss: Callable[[Any, Records], Tensor],
        trainable: Iterable[str] | None = None,
        *,
        physical_batch_size: int | None = None,
        data_free: Callable[[Any], Tensor] | None = None,
        made_up: Callable[[Sequence[int]], Records] | None = None,
    ) -> None:
        module.eval()
        if isinstance(loss, nn.Module):
            loss.eval()
        refuse_coupling(module)
        self.module, self.loss, self._data_free = module, loss, data_free
        if made_up is not None:
            self.made_up = made_up
        self.physical_batch_size = None if physical_batch_size is None else rows_of(physical_batch_size)
        if self.physical_batch_size and any(routes(getattr(layer, "config", None)) for layer in module.modules()):
            self.physical_batch_size = 1
        self.params = Parameters(chosen(module, ["*"] if trainable is None else trainable))
        self._widen()
        self._rows: dict[object, int] = {}

    def _widen(self) -> None:
        name = str(coarsest(self.module)).removeprefix("torch.")
        if any(t.dtype.itemsize < 4 for t in self.params.values()):
            self.module.float()
            self.module.register_forward_pre_hook(_cast, with_kwargs=True)
            todo = "the module is float32 from now on, and what it is called with is cast to that"
        elif coarsest(self.module).itemsize < 4:
            todo = "derivatives are differences of losses that are rounded so, divided by 2 zo_eps: prefer float32"
        else:
            return
        warnings.warn(f"Some weights are {name}, which rounds small differences of losses away: {todo}.", stacklevel=3)

    @property
    def couples_records(self) -> str | None:
        """What the privacy statement must say; None: each loss is its record's own, bit for bit."""
        return coupled(self.module) if self.physical_batch_size is None else None

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
        return self._losses(records)

    @torch.inference_mode()
    def _losses(self, records: Records) -> Tensor:
        if not (count := size_of(records)):
            return torch.zeros(0)
        if self.physical_batch_size is None:
            return self._block(records)
        blocks = filled(np.arange(count), self._rows_for(records, self.physical_batch_size))
        return torch.cat([self._block(pick(records, rows), len(rows))[:real] for rows, real in blocks])

    def check_records(self, data: Data, passes: int | None = None) -> None:
        """Compute the losses of all records, or of the first ``passes``, before a run.

        What only later records or weights bring to light counts as 0 in a run, as a loss that is not finite does.

        Raises:
            Refusal: records whose loss cannot be computed, by their numbers, or whose shape is told by others.
        """
        shape = shape_of(data[np.arange(1)])
        failing: list[int] = []
        end = len(data) if passes is None else min(passes, len(data))
        for start in range(0, end, _AT_ONCE):
            rows = np.arange(start, min(start + _AT_ONCE, end))
            try:
                records = data[rows]
                self._losses(records)
            except Refusal:
                raise
            except Exception:  # of any kind: what a foreign loss, or a look into foreign data, raises
                failing += self._failing(data, rows, _NAMED - len(failing))
                if not failing:
                    raise  # not for one record's sake: an ordinary mistake in the code
                continue
            if shape_of(records) != shape and self.physical_batch_size is not None:
                raise Refusal(
                    "records of one shape, whoever else is picked",
                    "some whose shape the others tell, as by padding to the longest",
                    "Pad all records to one length beforehand.",
                )
            if len(failing) == _NAMED:
                break
        if failing:
            raise Refusal(
                "a loss for each record",
                f"an error for {len(failing)} records{' or more' if len(failing) == _NAMED else ''}, number "
                f"{', '.join(map(str, failing))}",
                "model.losses(data[np.array([number])]) shows it. Mend or leave out these before they meet a run.",
            )

    def _failing(self, data: Data, rows: Indices, most: int) -> list[int]:
        found: list[int] = []
        for row in rows.tolist():
            try:
                self._losses(data[np.array([row])])
            except Exception:  # as above
                found.append(row)
            if len(found) == most:
                break
        return found

    def _block(self, records: Records, rows: int | None = None) -> Tensor:
        losses = self.loss(self.module, records)
        if losses.ndim != 1 or (rows is not None and len(losses) != rows):
            raise Refusal(
                "one loss for each record, shape (b,)",
                f"another, in {losses.ndim} dimensions",  # not its sizes: how many records there are is private
                'Use reduction="none" and take each record\'s own mean.',
            )
        return losses

    def _rows_for(self, records: Records, most: int) -> int:
        # By the records' public shape alone: the values of a private record must not decide how others are computed.
        key = shape_of(records), arithmetic(next(iter(self.params.values())))
        if key not in self._rows:
            first, why = not self._rows, self._unlike(records, most)
            self._rows[key] = 1 if why else most
            if why and first:  # once, and so before a run's first charge
                warnings.warn(f"{why}, so the module takes one record at a time, which is slow.", stacklevel=4)
        return self._rows[key]

    def _unlike(self, records: Records, size: int) -> str:
        # Why rows must not meet, if they must not.
        make = getattr(self, "made_up", partial(made_up_like, records))
        told: list[Tensor] = []

        def compute(trials: Sequence[int]) -> Tensor:
            with _outputs(self.module, told, size):
                losses = self._block(make(trials))
            return torch.cat([losses.double()[:, None], *told], 1)

        if size == 1:
            return ""
        if any(kind is list for kind in _kinds(shape_of(records))):
            return "Fields that are lists may be padded by the longest (tensors of one length may not)"
        try:
            alike = treats_rows_alike(compute, size, _TRIALS)
        except Exception as error:  # made-up values that this loss cannot take, in whatever way it says so
            return f"Made-up records could not be evaluated ({type(error).__name__}; made_up= can make better ones)"
        return "" if alike else "The rows of a block are not all treated alike"


def _kinds(shape: object) -> Iterator[object]:
    if isinstance(shape, tuple):
        for part in shape:
            yield from _kinds(part)
    else:
        yield shape


@contextmanager
def _outputs(module: nn.Module, told: list[Tensor], size: int) -> Iterator[None]:
    # What the layers give out, row by row, in float64: a loss may round a difference away that the next one does not.
    told.clear()

    def note(layer: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim and len(output) == size:
            told.append(output.reshape(size, -1).double())

    hooks = [layer.register_forward_hook(note) for layer in module.modules()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _cast(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, Any]:
    kind = next(t.dtype for t in module.parameters() if t.is_floating_point())

    def cast(value: Any) -> Any:
        return value.to(kind) if isinstance(value, Tensor) and value.is_floating_point() else value

    return tuple(map(cast, inputs)), {name: cast(value) for name, value in named.items()}
