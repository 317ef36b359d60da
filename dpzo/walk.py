"""An iterate's way through a plan's stages: what each begins with (a mask, an anchor) and what it ends with (its mean).

All of it follows from the starting weights and from what was released, so it costs no privacy, and a replay walks the
same way.
"""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from dpzo.averaging import TailAverage
from dpzo.errors import Refusal
from dpzo.masks import Kept, Mask, fixed_masks
from dpzo.parameters import Parameters
from dpzo.plan import Plan
from dpzo.types import Records


class Walk:
    """``model`` on its way: ``params`` is what moves in the present stage, ``mask`` the digest of its mask, if any.

    Raises:
        Refusal: a plan that prunes, and a model whose scores cannot be computed or a mask that is refused.
    """

    def __init__(self, plan: Plan, model: Any) -> None:
        self.plan, self.model = plan, model
        self.params: Parameters = model.params
        self.mask = ""
        self._number = -1
        self._mean: TailAverage | None = None
        self._masks: list[Mask] = []
        if plan.pruning is not None and plan.pruning.strategy == "static":
            self._masks = fixed_masks(plan.pruning, model, plan.stages)
        self.enter(0)

    def enter(self, number: int) -> None:
        """Begin stage ``number``, unless the walk is in it already; stages whose steps were all lost are passed by."""
        if number == self._number:
            return
        if self._mean is not None:  # the last step of the stage before may have been charged and lost
            self._mean.apply()
        stage, pruning = self.plan.stages[number], self.plan.pruning
        if pruning is not None:
            while (made := len(self._masks)) <= number:
                before = self._masks[-1] if self._masks else None
                self._masks.append(pruning.mask(self.model, self.plan.stages[made].keep, before))
            self.params = Kept(self.model.params, self._masks[number])
            self.mask = self._masks[number].digest
        self.params.anchor = self.params.snapshot() if stage.proximal else None
        self._mean = TailAverage(self.params, 0) if stage.average else None
        self._number = number

    def losses(self, records: Records) -> Tensor:
        """(b,) losses of the model: with its ``params`` of the present stage a walk is a model itself."""
        losses: Tensor = self.model.losses(records)
        return losses

    def took(self, index: int) -> None:
        """Take note that step ``index`` was taken; after its last one a stage goes to its mean and drops its anchor."""
        if self._mean is not None:
            self._mean.add(index)
        if index + 1 == self.plan.steps or self.plan.stage_of(index + 1) != self._number:
            if self._mean is not None:
                self._mean.apply()
            self._mean = self.params.anchor = None


def spans(plan: Plan, indices: range) -> Iterator[tuple[int, range]]:
    """Cut a range of step indices at the stages' boundaries: (the stage's number, its indices)."""
    start = 0
    for number, stage in enumerate(plan.stages):
        end = start + stage.steps
        if len(mine := range(max(start, indices.start), min(end, indices.stop))):
            yield number, mine
        start = end


def refuse_halfway(plan: Plan, first: int) -> None:
    """Refuse weights from the middle of a run whose stages look back at earlier weights.

    Raises:
        Refusal: weights after ``first`` > 0 steps, and stages with an anchor, a mean or a mask made of weights.
    """
    remembers = plan.pruning is not None or any(stage.proximal or stage.average for stage in plan.stages)
    if first and remembers:
        raise Refusal(
            "the weights that the run began with, for its stages look back at earlier ones",
            f"those after step {first - 1}",
            "Begin again from the starting weights: the ledger's steps are replayed without data.",
        )
