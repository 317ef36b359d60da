"""What the accountants share: the names that dp-accounting has for relations, and what is refused."""

from collections.abc import Iterator
from contextlib import contextmanager

import dp_accounting as dpa
from absl import logging as absl_logging
from dp_accounting import LaplaceDpEvent

from dpzo.accounting.parts import Part
from dpzo.accounting.relation import Relation
from dpzo.errors import Refusal

THEIRS = {
    Relation.ADD_REMOVE: dpa.NeighboringRelation.ADD_OR_REMOVE_ONE,
    Relation.REPLACE_ONE: dpa.NeighboringRelation.REPLACE_ONE,
    Relation.ZERO_OUT: dpa.NeighboringRelation.REPLACE_SPECIAL,
}


def refuse_sampled_laplace(part: Part, relation: Relation) -> None:
    """Refuse sampled Laplace noise under replace-one: no pair of laws is known here that dominates it."""
    if relation is Relation.REPLACE_ONE and part.rate != 1 and isinstance(part.mechanism, LaplaceDpEvent):
        raise Refusal(
            "sampled Laplace noise under add-remove or zero-out, where its loss is known",
            f"{relation}",
            "Choose another relation, the full batch or Gaussian noise.",
        )


@contextmanager
def supported(accountant: str, relation: Relation) -> Iterator[None]:
    """Turn dp-accounting's refusal into ours, and keep its log quiet."""
    level = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.ERROR)  # orders that do not converge are left out, which is safe
    try:
        yield
    except dpa.UnsupportedEventError as error:
        other = "rdp" if accountant == "pld" else "pld"
        raise Refusal(
            f"an event that {accountant} covers under {relation}", str(error), f"Use the {other} accountant."
        ) from error
    finally:
        absl_logging.set_verbosity(level)
