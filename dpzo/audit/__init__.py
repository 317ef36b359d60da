"""Attacks on what was really released, and the lower bounds that they prove: no claim here rests on our own word."""

from dpzo.audit.canaries import Coins, Weighted, audit_run
from dpzo.audit.claims import Finding
from dpzo.audit.release import audit_plan, audit_release
from dpzo.audit.seeds import audit_seeds, recovered_sums
from dpzo.audit.steps import audit_steps

__all__ = [
    "Coins",
    "Finding",
    "Weighted",
    "audit_plan",
    "audit_release",
    "audit_run",
    "audit_seeds",
    "audit_steps",
    "recovered_sums",
]
