"""Which records a step looks at. A sampler makes the batches, fixes the public divisor and knows its amplification.

A sampler ``covers`` an inner mechanism under a relation when an accountant can bound its event there; a plan refuses
every other pair. All are handed n, the public number of records. Under add/remove n is the size of the larger of two
neighbours: what is hidden is whether any one of the n records was there.
"""

from dpzo.sampling.bins import BallsAndBinsDpEvent, EpochLoss, amplified
from dpzo.sampling.epochs import BallsAndBins, ShuffledEpochs
from dpzo.sampling.single import FixedSize, FullBatch, PoissonSampler, TruncatedPoisson

SAMPLERS = (FullBatch, PoissonSampler, TruncatedPoisson, FixedSize, ShuffledEpochs, BallsAndBins)
INDEPENDENT = (FullBatch, PoissonSampler, TruncatedPoisson, FixedSize)  # each step is sampled on its own

__all__ = [
    "INDEPENDENT",
    "SAMPLERS",
    "BallsAndBins",
    "BallsAndBinsDpEvent",
    "EpochLoss",
    "FixedSize",
    "FullBatch",
    "PoissonSampler",
    "ShuffledEpochs",
    "TruncatedPoisson",
    "amplified",
]
