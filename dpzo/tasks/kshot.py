"""Which records: k for each class by seed, and a test set of at most so many."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from dpzo.errors import Refusal
from dpzo.tasks.prompt import Example


def seeded_order(n: int, seed: int) -> list[int]:
    """A permutation of 0..n-1: the indices sorted by n draws of 64 bits from PCG64(seed).

    Raw draws, and not ``Generator.permutation``: numpy keeps the first the same in all versions, the second
    only by custom, and a held-out set must not move when numpy is upgraded.

    >>> seeded_order(8, seed=42)
    [4, 1, 3, 6, 0, 7, 2, 5]
    """
    if n < 0 or seed < 0:
        raise Refusal("n >= 0 and seed >= 0", f"n = {n}, seed = {seed}", "Give a seed such as 42.")
    return [int(i) for i in np.argsort(np.random.PCG64(seed).random_raw(n), kind="stable")]


def k_shot(examples: Sequence[Example], k: int | None, n_labels: int, seed: int) -> tuple[Example, ...]:
    """The first k of every class in the seed's order, in that order; k None keeps all.

    A class with fewer than k gives all it has: of TREC with k = 512 remain 2646 and not 3072, because ABBR has
    only 86. With one seed, the records for a smaller k are among those for a larger one.

    Raises a Refusal for k < 1 or a label that is no index below n_labels.

    Source: the protocol is that of Gao et al. 2021 (LM-BFF) and Zhang et al. 2024, the algorithm is ours: the
    records are not those that their seeds 13, 21 and 42 chose.
    """
    if k is not None and k < 1:
        raise Refusal("k >= 1, or None for all records", k, "The paper uses k = 512.")
    if strange := sum(example.label not in range(n_labels) for example in examples):
        came = f"another for {strange:,} of {len(examples):,} records"
        raise Refusal(f"labels 0..{n_labels - 1}", came, "Give the task's own number of labels.")
    seen: Counter[int] = Counter()
    chosen = []
    for i in seeded_order(len(examples), seed):
        seen[examples[i].label] += 1
        if k is None or seen[examples[i].label] <= k:
            chosen.append(examples[i])
    return tuple(chosen)


def subsample(examples: Sequence[Example], at_most: int = 1000, seed: int = 42) -> tuple[Example, ...]:
    """At most so many records, chosen by seed and kept in their order; all where there are no more.

    The defaults are the papers' test sets: 1000 fixed records, or the 872 of SST-2, 277 of RTE, 500 of TREC.
    Raises a Refusal for at_most < 1.

    Source: the RoBERTa protocol of Zhang et al. 2024 ("1000 random" test records) and its code (seed 42).
    """
    if at_most < 1:
        raise Refusal("at_most >= 1", at_most, "The papers' test sets hold 1000 records.")
    return tuple(examples[i] for i in sorted(seeded_order(len(examples), seed)[:at_most]))
