"""A hash of data or weights: the same for the same content, another for any change of it."""

import hashlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dpzo.errors import Refusal


def fingerprint(what: Any) -> str:
    """sha256 of tensors, arrays, numbers, texts, and of lists, mappings and dataclasses of them.

    It sees every bit, type, shape, key and name, the order and the nesting; not the device, nor a tuple from a list.

    Raises:
        Refusal: something else; name the data yourself then, by any text that changes when they do.

    >>> fingerprint([1, 2]) == fingerprint((1, 2)), fingerprint([1, 2]) == fingerprint([1, 2.0])
    (True, False)
    """
    sha = hashlib.sha256()
    _feed(sha, what)
    return sha.hexdigest()


def keyed(name: str, key: bytes) -> str:
    """A hash of a fingerprint or another name of data, which tells nothing to whoever lacks the key.

    Without a key a fingerprint lets whoever knows all records but one try values for the last.
    """
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), key=key, digest_size=32).hexdigest()


def _feed(sha: Any, what: Any) -> None:
    # Every part says its kind and its length before its content, so no two things feed the same bytes.
    if isinstance(what, np.generic):
        what = np.asarray(what)
    if isinstance(what, Tensor) and what.layout == torch.strided:
        sha.update(f"tensor {what.dtype} {tuple(what.shape)} ".encode())
        sha.update(what.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    elif isinstance(what, np.ndarray) and not what.dtype.hasobject:
        sha.update(f"array {what.dtype.descr} {what.shape} ".encode())
        sha.update(what.tobytes())
    elif what is None or isinstance(what, bool | int | float | str | bytes):
        text = repr(what)
        sha.update(f"{type(what).__name__} {len(text)} {text} ".encode())
    elif is_dataclass(what) and not isinstance(what, type):
        sha.update(f"dataclass {type(what).__name__} ".encode())
        _feed(sha, {field.name: getattr(what, field.name) for field in fields(what)})
    elif isinstance(what, Mapping):
        sha.update(f"mapping {len(what)} ".encode())
        for key, value in what.items():
            _feed(sha, key)
            _feed(sha, value)
    elif isinstance(what, list | tuple):
        sha.update(f"list {len(what)} ".encode())
        for part in what:
            _feed(sha, part)
    else:
        raise Refusal(
            "tensors, arrays, numbers, texts, and lists, mappings or dataclasses of them, to fingerprint",
            type(what).__name__,
            "Give Ledger(data=...) a text of your own that changes whenever the data do.",
        )
