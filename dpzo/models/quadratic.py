"""f(x; x_i) = (x - x_i)' A (x - x_i) / 2 with diagonal A: the paper's synthetic problem, where all is known."""

from torch import Tensor

from dpzo.independence import COUPLED
from dpzo.parameters import Parameters


class Quadratic:
    """The quadratic with spectrum ``spectrum`` (d,), from the starting point ``start`` (d,); records are rows (b, d).

    Source: Zhang et al. 2024, section 5.1 (Figures 1 and 2).
    """

    couples_records = COUPLED  # one matrix product for all

    def __init__(self, spectrum: Tensor, start: Tensor) -> None:
        self.spectrum = spectrum
        self.params = Parameters({"x": start.clone()})

    def losses(self, records: Tensor) -> Tensor:
        """(b,) losses at the current x."""
        return 0.5 * (self.params["x"] - records).square() @ self.spectrum

    def gradient(self, records: Tensor) -> Tensor:
        """(d,) gradient of the mean loss at the current x, for checks."""
        return self.spectrum * (self.params["x"] - records.mean(0))

    def minimum(self, records: Tensor) -> Tensor:
        """Return the least mean loss over x, attained at the records' mean."""
        return (0.5 * (records.mean(0) - records).square() @ self.spectrum).mean()
