"""A change of coordinates: x = x_0 + s * w, where s is public and w is what a method trains, from zero.

A zeroth-order step moves all coordinates alike, so one coordinate that acts far more strongly than the others (such as
a channel of massive activations) dictates the step size for all. With s_j large where x_j acts weakly, w is better
conditioned. Privacy is untouched as long as s comes from public knowledge: the method sees just another loss.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dpzo.errors import Refusal
from dpzo.independence import couples_records
from dpzo.parameters import Parameters
from dpzo.types import LossModel, Records


class Rescaled:
    """``model`` in the coordinates w; ``scale`` holds s for every trained tensor, by name, in its shape.

    Raises:
        Refusal: a trained tensor without a scale of its shape.
    """

    def __init__(self, model: LossModel, scale: Mapping[str, Tensor]) -> None:
        for name, tensor in model.params.items():
            if name not in scale or scale[name].shape != tensor.shape:
                came = tuple(scale[name].shape) if name in scale else "none"
                raise Refusal(f"a scale of shape {tuple(tensor.shape)} for {name}", came, "Give one for each tensor.")
        self.model, self.scale = model, scale
        if hasattr(model, "made_up"):
            self.made_up = model.made_up
        self.origin = model.params.snapshot()
        self.params = Parameters({name: t.new_zeros(t.shape) for name, t in self.origin.items()})

    def sync(self) -> Any:
        """Write x_0 + s * w into the model, and return it."""
        for name, tensor in self.model.params.items():
            tensor.data.copy_(self.origin[name] + self.scale[name] * self.params[name])
        return self.model

    def check_records(self, data: Any, passes: int = 0) -> None:
        """As the model's, if it has one."""
        if hasattr(self.model, "check_records"):
            self.model.check_records(data, passes)

    @property
    def couples_records(self) -> str | None:
        """As for the model."""
        return couples_records(self.model)

    def data_free(self, *, one_token: bool = False) -> Tensor:
        """(): the model's data-free output at x_0 + s * w.

        A score of w_j is that of the weight x_j = x_0j + s_j w_j, the one that it moves. For a weight times a gradient
        this is no choice: removing x_j takes w_j by -x_j / s_j, along a derivative s_j times as steep.

        Raises:
            Refusal: the model has none.
        """
        model = self.sync()
        if not hasattr(model, "data_free"):
            raise Refusal("a model with a data-free output", type(model).__name__, "Rescale one that has it.")
        output: Tensor = model.data_free(one_token=one_token)
        return output

    def losses(self, records: Records) -> Tensor:
        """(b,) losses at x_0 + s * w."""
        losses: Tensor = self.sync().losses(records)
        return losses
