"""What the samplers ask of their arguments and of the mechanism inside them."""

from dp_accounting import DpEvent, GaussianDpEvent, NonPrivateDpEvent

from dpzo.errors import Refusal

ADD_REMOVE, REPLACE_ONE = "add-remove", "replace-one"  # the values of dpzo.accounting.Relation, which knows this room


def whole(name: str, value: int, most: int | None = None) -> None:
    """Refuse anything but a whole number from 1 to ``most``."""
    bound = "1 or more" if most is None else f"1 to {most}"
    if isinstance(value, bool) or not isinstance(value, int) or value < 1 or (most is not None and value > most):
        raise Refusal(f"{name} to be a whole number, {bound}", value, "Choose another.")


def rate(value: float) -> None:
    """Refuse a sample rate outside (0, 1]."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise Refusal("a sample rate above 0 and at most 1", value, "Choose a batch size from 1 to the data's size.")


def without_privacy(inner: DpEvent) -> bool:
    """Whether ``inner`` releases plainly: any sampler may carry it, and its epsilon is infinite."""
    return isinstance(inner, NonPrivateDpEvent)


def gaussian_or_none(inner: DpEvent) -> bool:
    """Whether ``inner`` is a Gaussian, or has no privacy to account."""
    return isinstance(inner, GaussianDpEvent) or without_privacy(inner)
