"""One way to refuse: what was expected, what came, what to do."""


class Refusal(ValueError):  # noqa: N818  (it refuses an input; nothing went wrong)
    """Bad input, said in three parts; nothing has been spent or written when it is raised."""

    def __init__(self, expected: str, came: object, todo: str) -> None:
        self.expected, self.came, self.todo = expected, came, todo
        super().__init__(f"expected {expected}; got {came}. {todo}")


def positive(name: str, value: float) -> None:
    """Refuse anything but a positive finite number.

    >>> positive("zo_eps", 0.0)
    Traceback (most recent call last):
    ...
    dpzo.errors.Refusal: expected zo_eps to be a positive finite number; got 0.0. Choose a value above zero.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise Refusal(f"{name} to be a positive finite number", value, "Choose a value above zero.")
