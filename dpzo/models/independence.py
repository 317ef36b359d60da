"""That a record's loss is its own, where users look for it; see ``dpzo.independence``."""

from dpzo.independence import COUPLED, check_independence, couples_records, refuse_coupling, routes

__all__ = ["COUPLED", "check_independence", "couples_records", "refuse_coupling", "routes"]
