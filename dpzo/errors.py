"""One way to refuse: what was expected, what came, what to do. What came is never the content of a record."""

import os


class Refusal(ValueError):  # noqa: N818  (it refuses an input; nothing went wrong)
    """Bad input, said in three parts; nothing has been spent or written when it is raised."""

    def __init__(self, expected: str, came: object, todo: str) -> None:
        self.expected, self.came, self.todo = expected, came, todo
        super().__init__(f"expected {expected}; got {came}. {todo}")


def content(value: object) -> str:
    """What a record holds, for a message: only where its owner has set ``DPZO_SHOW_CONTENT=1``, else nothing.

    Messages get into logs, bug reports and published notebooks. They say where something is, and leave it there.

    >>> content("a private text")
    ''
    """
    return f" ({str(value)[:80]!r})" if os.environ.get("DPZO_SHOW_CONTENT") == "1" else ""


def positive(name: str, value: float) -> None:
    """Refuse anything but a positive finite number.

    >>> positive("zo_eps", 0.0)
    Traceback (most recent call last):
    ...
    dpzo.errors.Refusal: expected zo_eps to be a positive finite number; got 0.0. Choose a value above zero.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        todo = "Choose a finite value." if value == float("inf") else "Choose a value above zero."
        raise Refusal(f"{name} to be a positive finite number", value, todo)


def not_negative(name: str, value: float) -> None:
    """Refuse anything but 0 or a positive finite number.

    >>> not_negative("sigma", -1.0)
    Traceback (most recent call last):
    ...
    dpzo.errors.Refusal: expected sigma to be 0 or a positive finite number; got -1.0. Choose a larger value.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        todo = "Choose a finite value." if value == float("inf") else "Choose a larger value."
        raise Refusal(f"{name} to be 0 or a positive finite number", value, todo)


def whole(name: str, value: int, least: int = 1) -> None:
    """Refuse anything but a whole number from ``least`` on.

    >>> whole("steps", 1.5)
    Traceback (most recent call last):
    ...
    dpzo.errors.Refusal: expected steps to be a whole number, at least 1; got 1.5. Give an int.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise Refusal(f"{name} to be a whole number, at least {least}", value, "Give an int.")
