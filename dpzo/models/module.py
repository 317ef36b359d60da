"""Any torch module with a loss for each record."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from dpzo.errors import Refusal
from dpzo.parameters import Parameters
from dpzo.types import Records

_COUPLING = nn.modules.batchnorm._BatchNorm


class ModuleModel:
    """A torch module in eval mode; ``loss(module, records)`` gives shape (b,).

    ``trainable`` names the parameters to train, all of them by default.

    Raises:
        Refusal: a name that the module does not have, or a layer that lets one record's loss depend on the others.
    """

    def __init__(
        self,
        module: nn.Module,
        loss: Callable[[Any, Records], Tensor],
        trainable: Iterable[str] | None = None,
    ) -> None:
        module.eval()
        for name, layer in module.named_modules():
            if isinstance(layer, _COUPLING) and not layer.track_running_stats:
                raise Refusal(
                    "layers that treat each record on its own", f"{name}, a batch norm", "Replace that layer."
                )
        named = dict(module.named_parameters())
        names = list(named) if trainable is None else list(trainable)
        if unknown := [name for name in names if name not in named]:
            raise Refusal("names of the module's parameters", unknown, f"It has {', '.join(named)}.")
        self.module, self.loss = module, loss
        self.params = Parameters({name: named[name] for name in names})

    def losses(self, records: Records) -> Tensor:
        """(b,) losses at the current parameters.

        Raises:
            Refusal: a loss that is not one number for each record.
        """
        with torch.inference_mode():
            losses = self.loss(self.module, records)
        if losses.ndim != 1:
            raise Refusal(
                "one loss for each record, shape (b,)",
                f"shape {tuple(losses.shape)}",
                'Use reduction="none" and take each record\'s own mean.',
            )
        return losses
