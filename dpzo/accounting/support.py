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
def supported(relation: Relation) -> Iterator[None]:
    """Turn the refusal of dp-accounting's RDP into ours, and keep its log quiet."""
    level = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.ERROR)  # orders that do not converge are left out, which is safe
    try:
        yield
    except dpa.UnsupportedEventError as error:
        raise Refusal(f"an event that rdp covers under {relation}", str(error), "Use the pld accountant.") from error
    finally:
        absl_logging.set_verbosity(level)
