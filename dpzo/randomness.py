"""Three streams that never meet: directions (public), who is in the batch (private), and the noise (secret).

The guarantee holds against someone who knows every direction. Noise that can be computed from a seed that anyone
knows, such as the direction's, protects nobody; so noise comes from the operating system, is never seeded, logged,
stored or restored, and no global generator can reach it.
"""

import os
from dataclasses import dataclass
from hashlib import blake2b
from typing import Self

import numpy as np
from scipy.special import ndtri

from dpzo.errors import Refusal
from dpzo.types import Entropy, Floats


class OsEntropy:
    """Randomness from the operating system's entropy; holds no state, so there is nothing to leak or replay.

    It serves the process that made it: a fork in the middle of a run would take each further step a second time, under
    other noise, and the two together say more than the one that was paid for.
    """

    secret = True
    _process: int

    def __new__(cls, *args: object, **more: object) -> Self:
        """Note the process, whatever a subclass does when it begins."""
        made = super().__new__(cls)
        made._process = os.getpid()
        return made

    def at(self, step: int) -> Self:
        """Return itself: what it gives never comes again.

        Raises:
            Refusal: in a fork of the process that made it, or in another that it was sent to.
        """
        if os.getpid() != self._process:
            raise Refusal("the process that made the streams", "a fork of it", "Make the streams where the run is.")
        return self

    def bits(self, count: int) -> int:
        """Return ``count`` random bits as an integer."""
        return int.from_bytes(os.urandom(count // 8), "little")

    def uniform(self, size: int) -> Floats:
        """Numbers in (0, 1): odd multiples of 2**-53, so neither end is ever reached."""
        words = np.frombuffer(os.urandom(8 * size), dtype="<u8")
        return ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52

    def normal(self, size: int) -> Floats:
        """Standard normal numbers by inversion, in double precision: for what no record is added to."""
        return np.asarray(ndtri(self.uniform(size)), dtype=np.float64)


class SeededEntropy:
    """Reproducible randomness for tests and figures. NOT PRIVATE: whoever knows the seed knows the noise."""

    secret = False

    def __init__(self, seed: int, step: int = -1) -> None:
        self.seed = seed
        self._generator = np.random.Generator(np.random.Philox(seed, counter=(step + 1) << 128))

    def at(self, step: int) -> "SeededEntropy":
        """Return the numbers of one step, whatever was drawn before: a run that stopped can go on as if it had not."""
        return SeededEntropy(self.seed, step)

    def bits(self, count: int) -> int:
        """Return ``count`` bits as an integer."""
        return int.from_bytes(self._generator.bytes(count // 8), "little")

    def uniform(self, size: int) -> Floats:
        """Return numbers in [0, 1)."""
        return self._generator.random(size)

    def normal(self, size: int) -> Floats:
        """Return standard normal numbers."""
        return self._generator.standard_normal(size)


@dataclass(frozen=True)
class Streams:
    """The three streams of a run. ``public_seed`` may be printed; the other two may not be asked for their state."""

    public_seed: int
    private: Entropy
    noise: Entropy

    def __post_init__(self) -> None:
        if not 0 <= self.public_seed < 2**64:
            raise Refusal(
                "a public seed from 0 to 2**64 - 1", self.public_seed, "Choose another; it need not be secret."
            )
        if self.private is self.noise:
            raise Refusal("two separate sources for batches and noise", "one object for both", "Make two.")

    @classmethod
    def secure(cls, public_seed: int) -> "Streams":
        """Return streams for real use: batches and noise from the operating system."""
        return cls(public_seed, OsEntropy(), OsEntropy())

    @classmethod
    def not_private(cls, public_seed: int, secret_seed: int) -> "Streams":
        """Return repeatable streams for tests and figures; reports of such a run say NOT PRIVATE."""
        batches, noise = (int(s) for s in np.random.SeedSequence(secret_seed).generate_state(2, np.uint64))
        return cls(public_seed, SeededEntropy(batches), SeededEntropy(noise))

    @property
    def are_private(self) -> bool:
        """Whether nobody can recompute the batches and the noise."""
        return self.private.secret and self.noise.secret

    def direction_seed(self, index: int) -> int:
        """Return the 64-bit seed of step ``index``'s direction: public, distinct for all practical purposes."""
        text = f"dpzo direction {self.public_seed} {index}".encode()
        return int.from_bytes(blake2b(text, digest_size=8).digest(), "little")
