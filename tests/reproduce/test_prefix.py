"""A prefix is attended to, by every token and beside the text; behind a cut it gives what it gives without one."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers

from dpzo import Refusal, Streams
from dpzo.models.encoding import Encoder
from dpzo.models.independence import check_independence
from dpzo.models.load import load
from dpzo.models.prompted import PromptedModel
from dpzo.tasks import Example, get_task
from reproduce.first_order import FirstOrder, dp_adamw, first_order_plan
from reproduce.last_prefix import prefixed
from reproduce.prefix import Prefix, PrefixModel

TASK = get_task("mr")
EXAMPLES = [Example((" ".join([("bad", "good")[i % 2], "plot"] * (1 + i)) + ".",), i % 2) for i in range(10)]
BOTH = pytest.mark.parametrize("last_only", [False, True])


def llama(roberta):
    """Random, with two heads of keys for four of queries; its tokenizer is the other small model's."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(roberta)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        initializer_range=0.2,
    )
    model = transformers.LlamaForCausalLM(config).requires_grad_(False)
    return SimpleNamespace(model=model, tokenizer=tokenizer, masked=False)


@pytest.fixture(scope="module", params=["roberta", "llama", pytest.param("bert-tiny", marks=pytest.mark.assets)])
def made(request, roberta):
    """A model and its encoder."""
    if request.param == "llama":
        loaded = llama(roberta)
    else:
        loaded = load(str(roberta) if request.param == "roberta" else request.param)
    prompt = TASK.masked if loaded.masked else TASK.causal_prompt()
    return loaded.model, Encoder(loaded.tokenizer, TASK, prompt, masked=loaded.masked)


def apart(a, b):
    return float((a - b).abs().max())


@BOTH
def test_a_prefix_changes_every_loss_and_no_weight(made, last_only):
    model = prefixed(*made, Prefix(4, last_only))
    before = {name: t.clone() for name, t in made[0].state_dict().items()}
    records = model.encode(EXAMPLES)
    first = model.losses(records)
    for name, t in model.params.items():
        changed = model.params.snapshot()
        t.data += torch.linspace(-1, 1, t.numel()).view(t.shape)
        assert (model.losses(records) - first).abs().min() > 1e-6, name
        model.params.restore(changed)
    assert torch.equal(model.losses(records), first)
    plan = first_order_plan(own := FirstOrder(3, 4, 0.1, 1e-3), len(records), 4.0, 1e-2)
    list(dp_adamw(plan, own, model, records, Streams.not_private(1, 2)))
    assert not torch.equal(model.losses(records), first)
    assert all(torch.equal(t, before[name]) for name, t in made[0].state_dict().items())
    assert not any(t.requires_grad or t.grad is not None for t in made[0].parameters())
    assert made[0].config._attn_implementation == "sdpa"


@BOTH
def test_attending_twice_to_the_same_is_attending_once(made, last_only):
    """Kills: a prefix that some head, some token of a masked text, or the label's place cannot see in full.

    Where every token sees all of the text, the text's own keys and values before it change nothing. In a causal model
    that is so in the last block, for the last token.
    """
    if not (last_only or made[1].masked):
        pytest.skip("earlier tokens of a causal text do not see all of it")
    model, plain = prefixed(*made, Prefix(4, last_only)), PromptedModel(*made)
    for i, example in enumerate(EXAMPLES):
        bare, records = plain.encode([example]), model.encode([example])
        told = [[] for _ in model._blocks]
        with model._telling([{"told": of} for of in told]):
            PromptedModel._states(model, bare, len(bare.ids[0]))
        numbered = list(enumerate(told, model._first))
        model._read = {f"{b}.key": of[1][0] for b, of in numbered} | {f"{b}.value": of[2][0] for b, of in numbered}
        assert apart(model.losses(records), plain.losses(bare)) < 2e-5, i
        model._read = {name: t.flip(0) for name, t in model._read.items()}  # the heads' prefixes exchanged
        assert apart(model.losses(records), plain.losses(bare)) > 1e-4, i


def test_a_causal_prefix_is_a_cache(roberta):
    """The library's own way to let a causal model read keys and values before a text."""
    loaded = llama(roberta)
    encoder = Encoder(loaded.tokenizer, TASK, TASK.causal_prompt(), masked=False)
    model = PrefixModel(loaded.model, encoder, Prefix(4))
    for t in model.params.values():
        t.data += torch.linspace(-1, 1, t.numel()).view(t.shape)
    records = model.encode(EXAMPLES)
    for i, ids in enumerate(records.ids):
        cache = transformers.DynamicCache(config=loaded.model.config)
        for block in range(3):
            cache.update(model.params[f"{block}.key"][None], model.params[f"{block}.value"][None], block)
        places = torch.arange(len(ids))[None]
        seen = torch.ones(1, 4 + len(ids), dtype=torch.long)
        logits = loaded.model(torch.from_numpy(ids)[None], seen, places, cache).logits[0, -1]
        words = torch.tensor([word[0] for word in encoder.words])
        assert apart(model.scores(records[np.array([i])])[0], logits[words]) < 1e-5


def test_behind_the_cut_it_is_the_same_model(made):
    fast, slow = prefixed(*made, Prefix(4, last_only=True)), PrefixModel(*made, Prefix(4, last_only=True))
    for name, t in fast.params.items():
        assert torch.equal(t, slow.params[name])
        t.data += torch.linspace(-1, 1, t.numel()).view(t.shape)
        slow.params[name].data.copy_(t)
    quick, whole = fast.encode(EXAMPLES), slow.encode(EXAMPLES)
    assert quick.passed is not None
    assert whole.passed is None
    assert apart(fast.losses(quick), slow.losses(whole)) < 1e-5


@BOTH
def test_padding_and_mates_change_nothing(made, last_only):
    model = prefixed(*made, Prefix(4, last_only))
    records = model.encoder.encode(EXAMPLES)
    longest = max(map(len, records.ids))
    for i, ids in enumerate(records.ids):
        one = records[np.array([i])]
        narrow, wide = (model._finish(model._forward(one, w)[1]) for w in (len(ids), longest + 20))
        assert apart(narrow, wide) < 1e-5
    assert check_independence(model, model.encode(EXAMPLES)) == 0.0


@BOTH
def test_it_begins_at_real_keys_and_values(made, last_only):
    """Neither noise nor one token four times."""
    model = prefixed(*made, Prefix(4, last_only))
    blocks = made[0].config.num_hidden_layers
    assert list(model.params) == [
        f"{b}.{kind}" for b in range(blocks - 1 if last_only else 0, blocks) for kind in ("key", "value")
    ]
    told = [[] for _ in model._blocks]
    public = np.array(model.encoder._tokens("The kettle whistles long before anyone")[:5])
    with model._telling([{"told": of} for of in told]):
        made[0].base_model(input_ids=torch.from_numpy(public)[None])
    for block, (_, key, value, _) in enumerate(told, model._first):
        assert apart(model.params[f"{block}.key"], key[0, :, 1:]) < 1e-5
        assert apart(model.params[f"{block}.value"], value[0, :, 1:]) < 1e-5


@BOTH
def test_a_run_learns(made, last_only):
    """That one answer is always right: for other texts, too."""
    model = prefixed(*made, Prefix(4, last_only))
    train, test = model.encode(EXAMPLES[1:7:2] * 6), model.encode(EXAMPLES[7::2])
    before = model.losses(test).mean()
    own = FirstOrder(10, 9, 0.1, 1e-3)
    plan = first_order_plan(own, len(train), 4.0, 1e-2)
    plan = replace(plan, mechanism=replace(plan.mechanism, noise_multiplier=0.1))
    list(dp_adamw(plan, own, model, train, Streams.not_private(1, 2)))
    assert model.losses(test).mean() < before - 0.02


def test_what_has_no_prefix_here_is_refused(made):
    model, encoder = made
    other = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=500, n_embd=8, n_layer=1, n_head=1))
    with pytest.raises(Refusal, match="gpt2"):
        PrefixModel(other, encoder, Prefix())
    with pytest.raises(Refusal, match="prefix"):
        prefixed(model, encoder, Prefix()).data_free()
