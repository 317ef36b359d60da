"""From a DpEvent to epsilon, and back to the noise that a target needs.

Every function asks for the neighbouring relation, because the same run has another epsilon under each. An event's
noise multiplier is relative to C, the most that one record can contribute: under add/remove and zero-out a record
moves the sum by C, under replace-one by 2C.
"""

from dpzo.accounting.accountants import ACCOUNTANTS, applicable, choose, delta, epsilon
from dpzo.accounting.calibration import calibrate, paper_noise_multiplier
from dpzo.accounting.parts import gaussian_mu
from dpzo.accounting.relation import Relation, check_delta

__all__ = [
    "ACCOUNTANTS",
    "Relation",
    "applicable",
    "calibrate",
    "check_delta",
    "choose",
    "delta",
    "epsilon",
    "gaussian_mu",
    "paper_noise_multiplier",
]
