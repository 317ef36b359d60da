"""Philox4x32-10: random words as a function of (key, counter), on any device and in any order.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). Integer arithmetic
alone, so that every device and every thread count gives the same bits; a faster kernel must give these bits too.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_MASK = 0xFFFFFFFF


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Four 32-bit words, as int64 tensors, for each 128-bit counter and 64-bit key.

    The tensors of ``counter`` and ``key`` are int64, hold 32-bit values and broadcast against one another.
    """
    shape = np.broadcast_shapes(*(tuple(part.shape) for part in (*counter, *key)))
    c0, c1, c2, c3 = (part.expand(shape) for part in counter)
    k0, k1 = key
    for _ in range(_ROUNDS):
        # The product of two 32-bit words wraps around int64's sign, which leaves its 64 bits right; a word's
        # upper half may hold rubbish until it is masked, because only multiplication looks at it.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0 = (p1 >> 32).bitwise_xor_(c1).bitwise_xor_(k0).bitwise_and_(_MASK)
        c2 = (p0 >> 32).bitwise_xor_(c3).bitwise_xor_(k1).bitwise_and_(_MASK)
        c1, c3 = p1, p0
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1 & _MASK, c2, c3 & _MASK


def standard_normals(start: int, count: int, *, keys: Sequence[int], stream: int, device: torch.device | str) -> Tensor:
    """Coordinates ``start .. start+count-1`` of the Gaussian vectors named (key, stream), float32, (keys, count).

    Coordinate i is a function of (key, stream, i) alone: Box-Muller on the Philox words at counter i // 4. Each key
    and ``stream`` are 64-bit integers. The words are the same bits on every device; the logarithm and the cosine may
    differ in the last place between a CPU and a GPU.
    """
    first, last = start // 4, (start + count + 3) // 4
    index = torch.arange(first, last, dtype=torch.int64, device=device)
    halves = torch.tensor([(key & _MASK, key >> 32) for key in keys], device=device)[:, :, None]
    words = philox(
        (
            index & _MASK,
            index >> 32,
            torch.tensor(stream & _MASK, device=device),
            torch.tensor(stream >> 32, device=device),
        ),
        (halves[:, 0], halves[:, 1]),
    )
    normals = torch.empty(len(keys), len(index), 4, dtype=torch.float32, device=device)
    for pair in (0, 1):
        # 24 bits each: what float32 holds exactly. The half keeps the logarithm's argument above zero.
        u = (words[2 * pair] >> 8).float().add_(0.5).mul_(2.0**-24)
        angle = (words[2 * pair + 1] >> 8).float().mul_(2 * math.pi * 2.0**-24)
        radius = u.log_().mul_(-2).sqrt_()
        torch.mul(radius, torch.cos(angle), out=normals[..., 2 * pair])
        torch.mul(radius, torch.sin(angle), out=normals[..., 2 * pair + 1])
    skip = start - 4 * first
    return normals.view(len(keys), -1)[:, skip : skip + count]
