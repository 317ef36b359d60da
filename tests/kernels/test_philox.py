import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dpzo.kernels.philox import philox, standard_normals
from tests.chance import ALPHA, correlation_p, ks_p, median_of_means

# Published with the generator: Random123, examples/kat_vectors, philox4x32 with 10 rounds.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text):
    return tuple(int(w, 16) for w in text.split())


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_known_answers(counter, key, expected):
    got = philox(*(tuple(torch.tensor([w]) for w in words(text)) for text in (counter, key)))
    assert tuple(int(w) for w in got) == words(expected)


def test_known_answers_at_once():
    counters, keys = (
        tuple(torch.tensor(column) for column in zip(*(words(known[part]) for known in KNOWN), strict=True))
        for part in (0, 1)
    )
    got = philox(tuple(c[:, None] for c in counters), keys)  # every counter under every key
    for row, (_, _, expected) in enumerate(KNOWN):
        assert tuple(int(w[row, row]) for w in got) == words(expected)


def normal(start, count, key=7, stream=3):
    return standard_normals(start, count, keys=[key], stream=stream, device="cpu")[0]


@given(st.integers(0, 100), st.integers(1, 300), st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=4))
def test_many_keys_at_once_are_the_same_bits(start, count, keys):
    together = standard_normals(start, count, keys=keys, stream=3, device="cpu")
    assert torch.equal(together, torch.stack([normal(start, count, key) for key in keys]))


WHOLE = normal(0, 5000)


@given(st.integers(0, 4999), st.integers(1, 5000))
def test_a_window_is_a_slice_of_the_whole(start, count):
    assert torch.equal(normal(start, min(count, 5000 - start)), WHOLE[start : start + count])


def test_a_window_far_beyond_32_bits_of_counter():
    start = 4 * 2**33 + 3
    assert torch.equal(normal(start, 9)[5:], normal(start + 5, 4))
    assert not torch.equal(normal(start, 9), normal(3, 9)), "the counter's upper word must count"


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("key", {"key": 8}),
        ("key's upper word", {"key": 7 + 2**32}),
        ("stream", {"stream": 4}),
        ("stream's upper word", {"stream": 3 + 2**63}),
    ],
)
def test_another_name_another_vector(name, other):
    assert not torch.isclose(normal(0, 1000), normal(0, 1000, **other)).any()


@pytest.mark.statistical
def test_law_is_standard_normal():
    """Kills: an angle over half of the circle, the cosine twice, sigma * 0.9."""
    sample = normal(0, 8000, key=11).numpy()
    assert ks_p(sample, "norm") > ALPHA
    assert ks_p(np.abs(sample), "norm") < ALPHA, "half of the circle"
    assert ks_p(0.9 * normal(0, 40_000, key=11).numpy(), "norm") < ALPHA, "sigma * 0.9"


@pytest.mark.statistical
def test_the_four_coordinates_of_a_counter_are_uncorrelated_in_size():
    """Kills: one radius used for all four coordinates (uncorrelated, each normal, yet not independent)."""
    z = normal(0, 400_000, key=5).view(-1, 4).double().numpy()
    for i, j in ((0, 2), (1, 3), (0, 1)):
        products = (z[:, i] ** 2 - 1) * (z[:, j] ** 2 - 1)
        mean, tolerance = median_of_means(products, sd=2.0, tests=3)
        assert abs(mean) < tolerance
    one_radius = z / np.hypot(z[:, 2], z[:, 3])[:, None] * np.hypot(z[:, 0], z[:, 1])[:, None]
    mean, tolerance = median_of_means((one_radius[:, 0] ** 2 - 1) * (one_radius[:, 2] ** 2 - 1), sd=2.0)
    assert abs(mean) > tolerance


@pytest.mark.statistical
@pytest.mark.parametrize(
    "other", [{"key": 8}, {"stream": 4}, {"key": 7 + 2**32}, {"stream": 3 + 2**32}, {"start": 4 * 10**6}]
)
def test_streams_and_keys_are_uncorrelated(other):
    """Kills: keys or streams that share words (the same seed for each layer)."""
    x = normal(0, 100_000).numpy()
    y = normal(**{"start": 0, "count": 100_000, **other}).numpy()
    assert correlation_p(x, y) > ALPHA
    assert correlation_p(x, 0.05 * x + y) < ALPHA, "one twentieth in common"
