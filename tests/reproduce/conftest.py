"""A small random RoBERTa with its tokenizer, data files of the six tasks, and the program as a function."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import typer
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from typer.testing import CliRunner, Result

from reproduce import table2

WORDS = (
    *("terrible", "bad", "okay", "good", "great", "Yes", "Maybe", "No", "Description", "Entity", "Expression"),
    *("Human", "Location", "Number", "It", "was", "film", "plot", "who", "when", "it", "rains", "wet"),
)


@pytest.fixture(scope="session")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a RobertaForMaskedLM of 2 layers, as transformers saves it."""
    home = tmp_path_factory.mktemp("model") / "small-roberta"
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        min_frequency=1,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    raw.train_from_iterator([f"{word} {word}." for word in WORDS], trainer)
    raw.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    names = ("bos_token", "pad_token", "eos_token", "unk_token", "mask_token")
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=raw, **dict(zip(names, special, strict=True)))
    config = transformers.RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=300,
        type_vocab_size=1,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        initializer_range=0.2,
    )
    torch.manual_seed(0)
    transformers.RobertaForMaskedLM(config).save_pretrained(home)
    tokenizer.save_pretrained(home)
    return home


def phrase(i: int) -> str:
    """Different for every i below a few thousand."""
    return " ".join(WORDS[(i // len(WORDS) ** p + 3 * p) % len(WORDS)] for p in range(4 + i % 5))


def put(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


SIZES = {"train": 96, "dev": 40, "test": 30}


@pytest.fixture(scope="session")
def six_tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The six tasks' files, each in the form in which it is handed around, in one folder."""
    home = tmp_path_factory.mktemp("data")
    two, three = ("entailment", "not_entailment"), ("entailment", "neutral", "contradiction")
    for s, (split, n) in enumerate(SIZES.items()):
        put(home / "sent-conv" / f"stsa.binary.{split}", [f"{i % 2} {phrase(3 * i + s)} ." for i in range(n)])
        put(home / "sent-conv" / f"stsa.fine.{split}", [f"{i % 5} {phrase(3 * i + s)} ." for i in range(n)])
        put(home / "snli" / f"labels.{split}", [three[i % 3] for i in range(n)])
        put(home / "snli" / f"s1.{split}", [phrase(3 * i + s) + " ." for i in range(n)])
        put(home / "snli" / f"s2.{split}", [phrase(i + 7) for i in range(n)])
    # One class large enough to carve a validation set from, as there is in the real TREC and MNLI.
    many = [f"{0 if i < 620 else i % 5 + 1} {phrase(i)} ?" for i in range(720)]
    put(home / "sent-conv" / "TREC.train.all", many)
    put(home / "sent-conv" / "TREC.test.all", [f"{i % 6} {phrase(2000 + i)} ?" for i in range(30)])
    head = "index\tpromptID\tgenre\tsentence1\tsentence2\tgold_label"
    for name, n in (("train", 1860), ("dev_matched", 30)):
        rows = [f"{i}\t{i}\tfiction\t{phrase(i)} .\t{phrase(i + 9)}\t{three[i % 3]}" for i in range(n)]
        put(home / "MNLI" / f"{name}.tsv", [head, *rows])
    for s, (name, n) in enumerate((("train", 96), ("dev32", 40), ("val", 30))):
        rows = [
            {"premise": phrase(3 * i + s) + ".", "hypothesis": phrase(i), "label": two[i % 2], "idx": i}
            for i in range(n)
        ]
        put(home / "RTE" / f"{name}.jsonl", [json.dumps(row) for row in rows])
    return home


@pytest.fixture(scope="session")
def program() -> Callable[..., Result]:
    """``reproduce/table2.py`` with arguments, in this process; .stdout, .stderr, .exit_code."""
    app = typer.Typer()
    app.command()(table2.main)

    def call(*arguments: object) -> Any:
        return CliRunner().invoke(app, [str(a) for a in arguments])

    return call
