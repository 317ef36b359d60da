"""Prompts as token ids: the template survives, the text gives way, and private text is never more than text."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from dpzo.errors import Refusal
from dpzo.models.encoding import Encoder, Records
from dpzo.tasks import TASKS, Example, Prompt, Task, get_task

Loader = Callable[[str], Any]
SPECIAL = ("[MASK]", "<mask>", "</s>", "<s>", "<|endoftext|>", "[SEP]", "<pad>", "{mask}", "[CLS] [MASK] <mask></s>")
WORDY = "good great film was dull " * 200


def encoder_of(one: Any, task: Task, **options: Any) -> Encoder:
    prompt = task.masked if one.masked else task.causal_prompt()
    return Encoder(one.tokenizer, task, prompt, masked=one.masked, **options)


def find(ids: Any, part: list[int]) -> list[int]:
    """Where a run of ids stands."""
    whole = list(ids)
    return [i for i in range(len(whole)) if whole[i : i + len(part)] == part]


def test_ids_are_written_out_as_the_template_says(loaded: Loader) -> None:
    one = loaded("roberta")
    records = encoder_of(one, get_task("sst2")).encode([Example(("good film",), 1)])
    tokens = one.tokenizer.convert_ids_to_tokens(records.ids[0])
    assert tokens == ["<s>", "good", "Ġfilm", "ĠIt", "Ġwas", "<mask>", ".", "</s>"]
    assert (records.position.tolist(), records.label.tolist()) == ([5], [1])
    pair = encoder_of(one, get_task("snli")).encode([Example(("It was good.", "The film"), 2)])
    tokens = one.tokenizer.convert_ids_to_tokens(pair.ids[0])
    assert tokens == ["<s>", "It", "Ġwas", "Ġgood", "?", "<mask>", ",", "Ġthe", "Ġfilm", "</s>"]
    causal = loaded("opt")
    records = encoder_of(causal, get_task("sst2")).encode([Example(("good film",), 0)])
    # The beginning of a text is marked as in training, its end is not: the label's word comes next.
    assert causal.tokenizer.convert_ids_to_tokens(records.ids[0]) == ["</s>", "good", "Ġfilm", "ĠIt", "Ġwas"]
    assert records.position.tolist() == [4]
    assert encoder_of(loaded("gpt2"), get_task("sst2")).encode([Example(("x",), 0)]).ids[0].shape == (3,)


@pytest.mark.parametrize("family", ["bert", "roberta", "opt", "gpt2", "llama"])
@pytest.mark.parametrize("name", ["sst2", "sst5", "snli", "mnli", "rte", "trec", "mr"])
def test_a_long_text_gives_way_and_the_template_stays(loaded: Loader, family: str, name: str) -> None:
    one, task = loaded(family), TASKS[name]
    encoder = encoder_of(one, task, single_token=False)
    n = task.n_texts
    short = Example(("good film .",) * n, 0)
    for texts in ((WORDY,) * n, ("good film .",) * (n - 1) + (WORDY,), (WORDY,) + ("dull .",) * (n - 1)):
        records = encoder.encode([Example(texts, 0), short])
        long, position = records.ids[0], int(records.position[0])
        limit = task.max_length
        if task.first_limit is not None and (n == 1 or texts[1] != WORDY):
            limit = min(limit, task.first_limit + len(records.ids[1]))
        assert len(long) <= limit
        assert len(long) >= (task.max_length if limit == task.max_length else task.first_limit)
        pieces = [encoder._tokens(p.string) for p in encoder.prompt.render(short) if p.kind == "literal"]
        assert all(find(long, piece) for piece in pieces)
        if one.masked:
            assert find(long, [one.tokenizer.mask_token_id]) == [position]
            assert (long[0], long[-1]) == (records.ids[1][0], records.ids[1][-1])
        else:
            assert position == len(long) - 1
            assert find(long, pieces[-1])[-1] == len(long) - len(pieces[-1])


def test_the_first_limit_is_the_first_texts_alone(loaded: Loader) -> None:
    one = loaded("roberta")
    mnli = get_task("mnli")
    encoder = encoder_of(one, mnli)
    long = encoder.encode([Example((WORDY, "dull"), 0)])
    assert int(long.position[0]) == 1 + 240 + 1  # <s>, the text, "?"
    assert len(long.ids[0]) == 1 + 240 + 1 + 1 + 1 + len(encoder._tokens(" dull")) + 1
    sst5 = encoder_of(one, get_task("sst5")).encode([Example((WORDY,), 0)])
    assert len(sst5.ids[0]) == 110 + len(one.tokenizer(" It was.")["input_ids"]) + 1
    sst2 = encoder_of(one, get_task("sst2")).encode([Example((WORDY,), 0)])
    assert len(sst2.ids[0]) == 128


def test_the_longer_of_two_texts_gives_way_first(loaded: Loader) -> None:
    one = loaded("roberta")
    task = replace(get_task("mnli"), max_length=20, first_limit=None)
    encoder = encoder_of(one, task)  # <s> ? <mask> , </s> leave 15
    even = encoder.encode([Example((WORDY, WORDY), 0)])
    assert int(even.position[0]) == 1 + 7 + 1  # on a draw the first
    few = encoder.encode([Example((WORDY, "good film"), 0)])
    assert int(few.position[0]) == 1 + 13 + 1
    assert find(few.ids[0], encoder._tokens(" good film"))


def test_a_causal_prompt_is_not_ended_even_where_the_tokenizer_would_end_a_text(loaded: Loader) -> None:
    tokenizer, task = loaded("roberta").tokenizer, get_task("sst2")
    records = Encoder(tokenizer, task, task.causal_prompt(), masked=False).encode([Example(("good",), 0)])
    assert tokenizer.convert_ids_to_tokens(records.ids[0]) == ["<s>", "good", "ĠIt", "Ġwas"]
    assert records.position.tolist() == [3]


def test_a_template_that_leaves_no_room_is_refused(loaded: Loader) -> None:
    task = replace(get_task("sst2"), max_length=6)
    encoder = encoder_of(loaded("roberta"), task)
    with pytest.raises(Refusal, match=r"room for the text within 6 tokens; got a template of 6 tokens"):
        encoder.encode([Example(("good",), 0)])
    assert len(encoder_of(loaded("roberta"), replace(task, max_length=7)).encode([Example((WORDY,), 0)]).ids[0]) == 7


@pytest.mark.parametrize("family", ["bert", "roberta", "opt", "gpt2", "llama", "qwen2"])
@pytest.mark.parametrize("said", SPECIAL)
def test_special_tokens_in_private_text_are_plain_text(loaded: Loader, family: str, said: str) -> None:
    one = loaded(family)
    encoder = encoder_of(one, get_task("sst2"))
    clean, odd = encoder.encode([Example(("a film",), 0), Example((f"a {said} film {said}",), 0)]).ids
    known = set(one.tokenizer.all_special_ids) - {one.tokenizer.unk_token_id}
    assert [i for i in odd if i in known] == [i for i in clean if i in known]
    assert len(odd) > len(clean)


@pytest.mark.parametrize("family", ["bert", "roberta"])
@given(parts=st.lists(st.sampled_from(["<mask>", "[MASK]", "</s>", " ", "a", "\n", "é", "[", "mask", "]", "\u200b"])))
def test_any_text_gives_one_mask_and_the_same_frame(loaded: Loader, family: str, parts: list[str]) -> None:
    one = loaded(family)
    encoder = encoder_of(one, get_task("sst2"))
    records = encoder.encode([Example(("".join(parts),), 0)])
    assert find(records.ids[0], [one.tokenizer.mask_token_id]) == [int(records.position[0])]
    assert len(records.ids[0]) <= 128


@pytest.mark.assets
@pytest.mark.parametrize("said", SPECIAL)
@pytest.mark.parametrize("name", ["bert-tiny", "smollm2-135m"])
def test_special_tokens_are_plain_text_for_the_packaged_tokenizers(name: str, said: str) -> None:
    from transformers import AutoTokenizer

    from dpzo.assets import fetch

    tokenizer, task = AutoTokenizer.from_pretrained(fetch(name)), get_task("mr")
    masked = name == "bert-tiny"
    encoder = Encoder(tokenizer, task, task.masked if masked else task.causal_prompt("sentiment"), masked=masked)
    said = said if masked else f"{said} <|im_start|>"
    clean, odd = encoder.encode([Example(("a film",), 0), Example((f"a {said} film",), 0)]).ids
    known = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    assert [i for i in odd if i in known] == [i for i in clean if i in known]


def unigram() -> Any:
    """As of XLM-RoBERTa or ALBERT: its special tokens are entries of the vocabulary, and of the lattice."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    text = "a great terrible film It was . <mask> </s> m a s k < > /"
    special = ["<s>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.UnigramTrainer(vocab_size=80, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator([text] * 5, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", mask_token="<mask>", bos_token="<s>", eos_token="</s>"
    )


def word_level() -> Any:
    words = ["[UNK]", "[MASK]", "a", "great", "terrible", "film", "It", "was", "."]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", mask_token="[MASK]")


@pytest.mark.parametrize("make", [unigram, word_level])
def test_no_kind_of_vocabulary_makes_a_mask_of_private_text(make: Callable[[], Any]) -> None:
    tokenizer, task = make(), get_task("sst2")
    encoder = Encoder(tokenizer, task, task.masked, masked=True, single_token=False)
    records = encoder.encode([Example(("a <mask> film </s> [MASK] <s>",), 0)])
    assert find(records.ids[0], [tokenizer.mask_token_id]) == [int(records.position[0])]
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    frame = [*encoder._before, tokenizer.mask_token_id, *encoder._after]
    assert [i for i in records.ids[0] if i in special] == frame


def prompt_with(*words: str, masked: bool = False) -> Prompt:
    return Prompt("{text} It was{mask}." if masked else "{text} It was", words)


@pytest.mark.parametrize(
    ("family", "words", "message"),
    [
        ("gpt2", (" great", " terribly bad"), r"label words of one token each; got ' terribly bad', which is \["),
        ("roberta", (" great", " xylophone"), r"one token each; got ' xylophone'"),
        ("bert", (" great", " \u4e00"), r"one token each; got ' \u4e00', which is \['\[UNK\]'\]"),
        ("bert", (" great", " Great"), r"label words of different tokens; got \(' great', ' Great'\)"),
    ],
)
def test_label_words_that_cannot_be_told_apart_are_refused(
    loaded: Loader, family: str, words: tuple[str, ...], message: str
) -> None:
    one, task = loaded(family), get_task("sst2")
    with pytest.raises(Refusal, match=message):
        Encoder(one.tokenizer, task, prompt_with(*words, masked=one.masked), masked=one.masked)


def test_whole_answers_may_be_of_several_tokens(loaded: Loader) -> None:
    one, task = loaded("gpt2"), get_task("sst2")
    encoder = Encoder(one.tokenizer, task, prompt_with(" great film", " dull"), masked=False, single_token=False)
    assert [len(word) for word in encoder.words] == [2, 1]


def test_a_masked_prompt_needs_a_mask_token(loaded: Loader) -> None:
    one, task = loaded("gpt2"), get_task("sst2")
    with pytest.raises(Refusal, match=r"a tokenizer with a mask token.* without one.*or a causal prompt"):
        Encoder(one.tokenizer, task, task.masked, masked=True)


def test_records_are_picked_and_joined_as_a_whole(loaded: Loader) -> None:
    encoder = encoder_of(loaded("roberta"), get_task("sst2"))
    examples = [Example((f"film {'dull ' * i}",), i % 2) for i in range(5)]
    records = encoder.encode(examples)
    picked = records[np.array([3, 0, 3])]
    assert picked.label.tolist() == [1, 0, 1]
    assert all(np.array_equal(picked.ids[j], records.ids[i]) for j, i in enumerate((3, 0, 3)))
    assert picked.position.tolist() == records.position[[3, 0, 3]].tolist()
    both = records.join(picked)
    assert len(both) == 8
    assert np.array_equal(both.ids[7], records.ids[3])
    assert both[np.array([5])].label.tolist() == [1]
    states = torch.arange(10.0).view(5, 2)
    cut = Records((), records.position, records.label, states)
    assert len(cut) == 5
    assert torch.equal(cut[np.array([4, 1])].passed, states[[4, 1]])
    assert torch.equal(cut.join(cut[np.array([2])]).passed[5], states[2])
    with pytest.raises(Refusal, match="records encoded in the same way"):
        records.join(cut)


def test_sentencepiece_words_are_one_token_as_in_running_text():
    # Llama-2's style: a space is put before every text, so that " great" on its own begins with a token for that space.
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>", "</s>"], show_progress=False)
    tokenizer.train_from_iterator(["x It was great", "x It was terrible", "x y"] * 50, trainer)
    tokenizer.pre_tokenizer = None
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>")
    alone = wrapped(" great", add_special_tokens=False)["input_ids"]
    assert len(alone) == 2  # otherwise this tokenizer does not show the trap
    task = get_task("sst2")
    encoder = Encoder(wrapped, task, task.causal_prompt("paper"), masked=False)
    running = wrapped("x It was great", add_special_tokens=False)["input_ids"]
    ids = encoder.encode([Example(("x",), 1)]).ids[0]
    assert [*ids, *encoder.words[1]] == running
