"""Differentially private zeroth-order fine-tuning: DPZero and its relatives, with forward passes alone."""

from dpzo.accounting import Relation
from dpzo.algorithms.dp_aggzo import dp_aggzo
from dpzo.algorithms.dp_zopo import dp_zopo
from dpzo.algorithms.dp_zoso import dp_zoso
from dpzo.algorithms.dpgd_zeroth import dpgd_zeroth
from dpzo.algorithms.dpzero import dpzero
from dpzo.algorithms.mezo import mezo
from dpzo.directions import GaussianDirection, SphereDirection
from dpzo.errors import Refusal
from dpzo.ledger import Ledger
from dpzo.masks import Pruning
from dpzo.models.module import ModuleModel
from dpzo.plan import Plan
from dpzo.randomness import Streams
from dpzo.stages import Stage
from dpzo.train import random_iterate, run
from dpzo.transcript import digest, replay
from dpzo.types import Step

__version__ = "0.1.0"
__all__ = [
    "GaussianDirection",
    "Ledger",
    "ModuleModel",
    "Plan",
    "Pruning",
    "Refusal",
    "Relation",
    "SphereDirection",
    "Stage",
    "Step",
    "Streams",
    "digest",
    "dp_aggzo",
    "dp_zopo",
    "dp_zoso",
    "dpgd_zeroth",
    "dpzero",
    "mezo",
    "random_iterate",
    "replay",
    "run",
]
