"""Which data sets are neighbours, and which deltas mean anything."""

from enum import StrEnum

from dpzo.errors import Refusal


class Relation(StrEnum):
    """Which two data sets the guarantee makes indistinguishable."""

    ADD_REMOVE = "add-remove"
    REPLACE_ONE = "replace-one"
    ZERO_OUT = "zero-out"

    @property
    def sensitivity(self) -> int:
        """How far one change moves a sum of contributions bounded by 1."""
        return 2 if self is Relation.REPLACE_ONE else 1


def check_delta(delta: float, n: int | None = None, accountant: str | None = None) -> None:
    """Refuse a delta outside (0, 1), or one of 1/n or more, at which publishing a random record would be allowed.

    The pure accountant alone also takes 0.
    """
    if accountant == "pure" and isinstance(delta, float) and delta == 0:
        return
    if not isinstance(delta, float) or not 0 < delta < 1:
        raise Refusal("a delta strictly between 0 and 1", delta, "Choose one well below 1/n, such as 1e-5.")
    if n is not None and delta * n >= 1:
        raise Refusal(
            f"a delta below 1/n = {1 / n:.3g}",
            delta,
            "At 1/n, publishing one record in full would count as private; choose a smaller delta.",
        )
