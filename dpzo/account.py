"""What a ledger says: its lines checked by their seals and read field by field, so that nothing in them is a guess."""

import json
import math
import re
from collections.abc import Callable
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from dpzo.errors import Refusal
from dpzo.mechanisms import GaussianVectorMechanism
from dpzo.plan import Plan
from dpzo.types import Step

SCHEMA = 2
NOT_PRIVATE = "whoever knows the seeds can compute the batches and the noise"


class Account(NamedTuple):
    """What a ledger says: what the run is, its released steps, how many were charged, and the weights it knows."""

    header: dict[str, Any]
    steps: list[Step]
    charged: int
    weights: dict[str, int]
    seal: bytes

    @property
    def plan(self) -> Plan:
        """The run's plan."""
        return Plan.described(self.header["plan"])

    def epsilon(self, delta: float) -> float:
        """What the charged steps cost, released or not; infinite once a step was taken with seeded noise."""
        if self.charged and not self.header["private"]:
            return math.inf
        return self.plan.epsilon(delta, steps=self.charged)


def read(path: str | Path) -> Account:
    """Read a ledger, also while a run writes it; a torn last line counts as one more charged step.

    Raises:
        Refusal: no file, or one that is damaged.
    """
    try:
        if Path(path).exists() and not Path(path).is_file():  # reading a pipe may never end
            raise OSError(0, "not a file")
        *whole, torn = Path(path).read_bytes().split(b"\n")
    except OSError as error:
        raise Refusal(f"a ledger at {path}", error.strerror, "Give the path of a run's ledger.") from error
    if not whole:
        raise Refusal("a ledger with its first line", "none", "This run had not begun, or it is no ledger.")
    account = account_of(whole, Path(path))
    if torn:
        return account._replace(charged=min(account.charged + 1, account.plan.steps))
    return account


def refuse_unsound(account: Account, path: Path) -> None:
    """Refuse to go on with steps that no sound run can have taken; ``dpzo audit`` says more about them.

    Raises:
        Refusal: more charges than the plan has steps, or a step released twice, uncharged or out of its order.
    """
    plan, places = account.plan, [-1, *(step.index for step in account.steps), account.charged]
    ordered = account.charged <= plan.steps and all(one < other for one, other in pairwise(places))
    if not ordered or any(step.stage != plan.stage_of(step.index) for step in account.steps):
        raise Refusal(
            f"steps in {path} as a run takes them: charged first, in order, each once",
            "others",
            "Look at it by `dpzo audit --ledger`; start a new ledger for a new run.",
        )


def sealed(before: bytes, text: bytes) -> bytes:
    """The seal of a line whose text is ``text``, after a line whose seal is ``before``."""
    return blake2b(before + b" " + text, digest_size=16).hexdigest().encode()


def account_of(lines: list[bytes], path: Path) -> Account:
    """What the whole lines of the ledger at ``path`` say.

    Raises:
        Refusal: a seal that does not fit, another schema, or a line that no run can have written.
    """
    seal, parts = b"", []
    for number, line in enumerate(lines, 1):
        written, _, text = line.partition(b" ")
        if written != (seal := sealed(seal, text)):
            raise Refusal(
                f"the lines of {path} as they were written",
                f"line {number} with a seal that does not fit it and the lines before",
                "Restore the file; never charge a damaged ledger as if it were whole.",
            )
        parts.append(text)
    number = 1
    try:
        header = _header(json.loads(parts[0]), path)
        plan = Plan.described(header["plan"])
        if plan.describe() != header["plan"]:
            raise KeyError("plan")
        account = Account(header, [], 0, {header["weights"]: 0}, seal)
        for text in parts[1:]:
            number += 1
            account = _with(account, json.loads(text), plan)
    except (
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        ArithmeticError,
        AssertionError,
        RecursionError,
    ) as error:
        if isinstance(error, Refusal) and error.expected.startswith("a ledger of schema"):
            raise
        raise Refusal(
            f"the lines of {path} as this version of dpzo writes them",
            f"line {number} with a field that is missing, unknown or no such value",
            "Use the version of dpzo that wrote it, or restore the file.",
        ) from None
    return account


def _header(told: dict[str, Any], path: Path) -> dict[str, Any]:
    if (schema := told["ledger"]) != SCHEMA or not isinstance(schema, int):
        shown = schema if isinstance(schema, int) else "no number"
        raise Refusal(f"a ledger of schema {SCHEMA}", f"{shown} in {path}", "Use the version of dpzo that wrote it.")
    kinds: dict[str, Callable[[Any], bool]] = {
        "ledger": _is_count,
        "plan": lambda plan: isinstance(plan, dict),
        "public_seed": lambda seed: _is_count(seed) and seed < 2**64,
        "private": lambda private: isinstance(private, bool),
        "weights": _is_text,
        "data": _is_text,
    }
    if told["private"] is False:
        kinds["NOT PRIVATE"] = lambda said: said == NOT_PRIVATE
    return _fields(told, kinds)


def _with(account: Account, told: dict[str, Any], plan: Plan) -> Account:
    if "charge" in told:
        _fields(told, {"charge": lambda index: _is_count(index) and index == account.charged})
        return account._replace(charged=account.charged + 1)
    if "checkpoint" in told:
        _fields(told, {"checkpoint": lambda count: _is_count(count) and count <= account.charged, "weights": _is_text})
        account.weights[told["weights"]] = told["checkpoint"]
        return account
    count = 0 if isinstance(plan.mechanism, GaussianVectorMechanism) else plan.mechanism.directions
    kinds: dict[str, Callable[[Any], bool]] = {
        "release": _is_count,
        "stage": lambda stage: _is_count(stage) and stage < len(plan.stages),
        "seed": lambda seed: re.fullmatch(r"[0-9a-f]{16}", seed) is not None,
        "scalars": lambda scalars: isinstance(scalars, list) and len(scalars) == count and all(map(_is_hex, scalars)),
    }
    _fields(told, kinds | ({"mask": _is_text} if "mask" in told else {}))
    scalars = tuple(map(float.fromhex, told["scalars"]))
    step = Step(told["release"], told["stage"], int(told["seed"], 16), scalars, told.get("mask", ""))
    account.steps.append(step)
    return account


def _fields(told: dict[str, Any], kinds: dict[str, Callable[[Any], bool]]) -> dict[str, Any]:
    if told.keys() != kinds.keys() or not all(fits(told[name]) for name, fits in kinds.items()):
        raise KeyError("fields")
    return told


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_hex(value: Any) -> bool:
    return isinstance(value, str) and float.fromhex(value).hex() == value
