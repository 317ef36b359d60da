"""The mean of the later iterates: post-processing of what was released, so free of privacy cost."""

import torch

from dpzo.parameters import Parameters


class TailAverage:
    """Averages the iterates from step ``first`` on; it rounds and holds in the tensors' own type widened to float64."""

    def __init__(self, params: Parameters, first: int) -> None:
        self.params, self.first, self.count = params, first, 0
        self.mean = {name: t.detach().to(torch.float64, copy=True) for name, t in params.items()}

    def add(self, index: int) -> None:
        """Take in the iterate after step ``index``."""
        if index < self.first:
            return
        self.count += 1
        for name, t in self.params.items():
            mean = self.mean[name]
            mean += (t.detach() - mean) / self.count

    def apply(self) -> None:
        """Write the average into the parameters, if there was anything to average."""
        if self.count:
            self.params.restore({name: mean.to(self.params[name].dtype) for name, mean in self.mean.items()})
