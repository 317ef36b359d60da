"""Small random language models of the real classes, saved to a folder and loaded as a user would load them."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from dpzo.models.encoding import Encoder
from dpzo.models.load import Loaded, load
from dpzo.models.prompted import PromptedModel
from dpzo.tasks import Example, get_task

Maker = Callable[..., PromptedModel]

WORDS = (
    *("terrible", "bad", "okay", "good", "great", "negative", "positive", "Yes", "Maybe", "No", "Description"),
    *("Entity", "Expression", "Human", "Location", "Number", "It", "was", "Review", "Sentiment", "Premise"),
    *("Hypothesis", "the", "premise", "imply", "hypothesis", "film", "plot", "actors", "dull"),
)
EXAMPLES = tuple(
    Example((" ".join(WORDS[(3 * i + 5 * j) % len(WORDS)] for j in range(1 + (7 * i) % 19)) + ".",), i % 2)
    for i in range(12)
)
# Of every family that can be cut: what is trained after its latest cut, and after the one before.
_LLAMA = {"late": ("model.norm.weight",), "tail": ("model.norm.*", "model.layers.1.mlp.*", "model.layers.1.post_*")}
_TRAINED = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "bert": {
        "late": ("cls.predictions.transform.*",),
        "tail": ("bert.encoder.layer.1.intermediate.*", "bert.encoder.layer.1.output.*", "cls.predictions.transform.*"),
    },
    "roberta": {
        "late": ("lm_head.dense.*", "lm_head.layer_norm.*"),
        "tail": ("roberta.encoder.layer.1.intermediate.*", "roberta.encoder.layer.1.output.*", "lm_head.dense.*"),
    },
}
_SIZES: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 300,
}  # fmt: skip


def byte_level(around: str, *special: str) -> transformers.PreTrainedTokenizerFast:
    """Byte-level BPE that knows WORDS with a space before them; ``around`` is like "<s> $A </s>"."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        min_frequency=1,
        special_tokens=list(special),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([f"{word} {word}." for word in WORDS], trainer)
    if around != "$A":
        tokenizer.post_processor = processors.TemplateProcessing(
            single=around, special_tokens=[(s, tokenizer.token_to_id(s)) for s in special]
        )
    known = {"<s>": "bos_token", "</s>": "eos_token", "<pad>": "pad_token", "<mask>": "mask_token"}
    known |= {"<unk>": "unk_token", "<|endoftext|>": "eos_token"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **{known[s]: s for s in special})


def word_piece() -> transformers.PreTrainedTokenizerFast:
    """WordPiece as BERT's, lower-casing; words outside WORDS fall into pieces or [UNK]."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=2000, min_frequency=1, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([f"[ {word} ] . ? , :" for word in [*WORDS, "mask"]], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **dict(zip(names, special, strict=True)))


def build(family: str) -> tuple[Any, Any]:
    """A random model of the family, with dropout of a half, and its tokenizer."""
    t = transformers
    tokenizer = {
        "bert": word_piece,
        "roberta": lambda: byte_level("<s> $A </s>", "<s>", "<pad>", "</s>", "<unk>", "<mask>"),
        "opt": lambda: byte_level("</s> $A", "<s>", "<pad>", "</s>", "<unk>"),
        "llama": lambda: byte_level("<s> $A", "<unk>", "<s>", "</s>"),
        "granite": lambda: byte_level("<s> $A", "<unk>", "<s>", "</s>"),
    }.get(family, lambda: byte_level("$A", "<|endoftext|>"))()
    sizes = _SIZES | {"vocab_size": len(tokenizer)}
    gated = sizes | {"intermediate_size": 48, "num_key_value_heads": 2, "attention_dropout": 0.5}
    dropped = {"hidden_dropout_prob": 0.5, "attention_probs_dropout_prob": 0.5, "intermediate_size": 48}
    makers: dict[str, Callable[[], Any]] = {
        "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**gated)),
        "mistral": lambda: t.MistralForCausalLM(t.MistralConfig(**gated, sliding_window=6)),
        "qwen2": lambda: t.Qwen2ForCausalLM(t.Qwen2Config(**gated, tie_word_embeddings=True)),
        "granite": lambda: t.GraniteForCausalLM(t.GraniteConfig(**gated, logits_scaling=3.0)),
        "opt": lambda: t.OPTForCausalLM(
            t.OPTConfig(**sizes, ffn_dim=48, word_embed_proj_dim=16, dropout=0.5, attention_dropout=0.5)
        ),
        "gpt2": lambda: t.GPT2LMHeadModel(
            t.GPT2Config(
                vocab_size=len(tokenizer),
                n_embd=32,
                n_layer=2,
                n_head=4,
                n_positions=300,
                resid_pdrop=0.5,
                attn_pdrop=0.5,
                embd_pdrop=0.5,
            )
        ),
        "gpt_neox": lambda: t.GPTNeoXForCausalLM(t.GPTNeoXConfig(**sizes, intermediate_size=48, hidden_dropout=0.5)),
        "bert": lambda: t.BertForMaskedLM(t.BertConfig(**sizes, **dropped)),
        "roberta": lambda: t.RobertaForMaskedLM(
            t.RobertaConfig(**sizes, **dropped, type_vocab_size=1, bos_token_id=0, pad_token_id=1, eos_token_id=2)
        ),
    }
    torch.manual_seed(0)
    model = makers[family]()
    # Every parameter is random, biases and norms too: a head that forgets one of them must be seen.
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return model, tokenizer


@pytest.fixture(scope="session")
def examples() -> tuple[Example, ...]:
    """Twelve labelled texts of 1 to 19 words."""
    return EXAMPLES


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A family's name -> the folder that holds its small model, made once."""
    home = tmp_path_factory.mktemp("small models")

    def made(family: str) -> Path:
        path = home / family
        if not path.exists():
            model, tokenizer = build(family)
            model.save_pretrained(path)
            tokenizer.save_pretrained(path)
        return path

    return made


@pytest.fixture(scope="session")
def loaded(folder: Callable[[str], Path]) -> Callable[[str], Loaded]:
    """A family's name -> a copy of its loaded model, the test's own."""
    known: dict[str, Loaded] = {}

    def given(family: str) -> Loaded:
        if family not in known:
            known[family] = load(str(folder(family)))
        one = known[family]
        return Loaded(one.name, copy.deepcopy(one.model), one.tokenizer, one.masked)

    return given


@pytest.fixture(scope="session")
def prompted(loaded: Callable[[str], Loaded]) -> Maker:
    """(family, trainable or "tail" or "late", task="sst2", kind=PromptedModel, **options) -> a model of its own."""

    def made(
        family: str, what: Any = ("*",), task_name: str = "sst2", kind: Any = PromptedModel, **options: Any
    ) -> Any:
        one, task = loaded(family), get_task(task_name)
        prompt = task.masked if one.masked else task.causal_prompt()
        encoder = Encoder(one.tokenizer, task, prompt, masked=one.masked)
        return kind(one.model, encoder, _TRAINED[family][what] if isinstance(what, str) else what, **options)

    return made
