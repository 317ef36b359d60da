"""Schedules are data: a tuple of frozen stages, all decided before the run."""

from dataclasses import dataclass

from dpzo.errors import Refusal, positive


@dataclass(frozen=True)
class Stage:
    """``steps`` steps with step size alpha = ``step_size`` and smoothing radius lambda = ``zo_eps``."""

    steps: int
    step_size: float
    zo_eps: float

    def __post_init__(self) -> None:
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise Refusal("a stage of at least one step", self.steps, "Give a whole number of steps.")
        positive("step_size", self.step_size)
        positive("zo_eps", self.zo_eps)
