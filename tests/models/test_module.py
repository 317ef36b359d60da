"""Any module with a loss for each record: what is trained of it, in which type, and on which records."""

import numpy as np
import pytest
import torch
import transformers
from datasets import Dataset
from torch import nn
from torch.nn.functional import cross_entropy, softplus
from torch.nn.utils.rnn import pad_sequence

from dpzo import GaussianDirection, Ledger, ModuleModel, Refusal, Relation, Streams, dpzero, run
from dpzo.estimators import two_point
from dpzo.ledger import read
from dpzo.models.independence import check_independence

NOISE = {"clip_threshold": 1.0, "noise_multiplier": 1.0, "relation": Relation.ADD_REMOVE}
PLAN = dpzero(n=30, batch_size=6, steps=4, step_size=1e-2, zo_eps=1e-3, **NOISE)
SIZES = {"vocab_size": 100, "hidden_size": 32, "intermediate_size": 64}
SIZES |= {"num_hidden_layers": 2, "num_attention_heads": 2}


def line(kind=torch.float32):
    torch.manual_seed(0)
    return nn.Linear(64, 1).to(kind)


def soft(m, r):
    return softplus(m(r)[:, 0])


X = torch.randn(30, 64, generator=torch.Generator().manual_seed(0))


def test_patterns_choose_what_is_trained_and_names_are_patterns():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    assert list(ModuleModel(net, soft).params) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert list(ModuleModel(net, soft, ["1.*"]).params) == ["1.weight", "1.bias"]
    assert list(ModuleModel(net, soft, ["1.bias", "*.bias"]).params) == ["0.bias", "1.bias"]
    assert list(ModuleModel(net, soft, "0.weight").params) == ["0.weight"]


def test_a_name_that_is_not_there_is_refused_with_a_few_that_are():
    llama = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, tie_word_embeddings=True))
    with pytest.raises(Refusal, match="patterns that match names") as refusal:
        ModuleModel(llama, soft, ["nothing"])
    assert len(str(refusal.value)) < 250
    for pattern in ("lm_head.weight", "lm_head.*"):
        with pytest.raises(Refusal, match=r"lm_head.weight is tied to model.embed_tokens.weight"):
            ModuleModel(llama, soft, [pattern])


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_that_is_trained_becomes_float32_and_that_is_said(kind):
    """Kills: derivatives that are 0, and paid steps that move no weight."""
    with pytest.warns(UserWarning, match=f"{str(kind)[6:]}.*the module is float32 from now on"):
        model = ModuleModel(line(kind), lambda m, r: softplus(m(r)[:, 0].float()))
    exact = ModuleModel(line(kind).float(), soft)
    u = GaussianDirection().draw(exact.params, 0)
    halves = X.to(kind)
    found, true = two_point(model, halves, u, 1e-4), two_point(exact, halves.float(), u, 1e-4)
    np.testing.assert_allclose(found, true, atol=0.02)
    start = model.params.snapshot()
    tiny = dpzero(n=30, batch_size=6, steps=20, step_size=1e-6, zo_eps=1e-4, **NOISE)
    list(run(tiny, model, halves, Streams.secure(1)))
    assert sum(int((model.params[name] != start[name]).sum()) for name in start) > 50


def test_half_precision_that_is_frozen_is_said_and_its_rounding_is_in_the_statement():
    net = nn.Sequential(nn.Linear(64, 4).bfloat16(), nn.Linear(4, 1))
    with pytest.warns(UserWarning, match="bfloat16.*prefer float32"):
        model = ModuleModel(net, lambda m, r: soft(m[1], m[0](r.bfloat16()).float()), ["1.*"])
    assert "about 8e-03 of it in bfloat16" in model.couples_records
    assert "about 1e-7 of it in float32" in ModuleModel(line(), soft).couples_records


def test_records_that_fail_alone_are_refused_by_number_before_the_first_charge(tmp_path):
    """Kills: an exception in a random step, which says that the record is there; its text in the refusal."""
    labels = torch.zeros(30, dtype=torch.int64)
    labels[[4, 17]] = 7

    class Labelled:
        def __len__(self):
            return 30

        def __getitem__(self, rows):
            return {"x": X[rows], "y": labels[rows]}

    def loss(m, r):
        return cross_entropy(torch.cat([m(r["x"]), m(-r["x"])], 1), r["y"], reduction="none")

    model = ModuleModel(line(), loss)
    match = r"got an error for 2 records, number 4, 17\."
    with Ledger(tmp_path / "ledger", data="d") as ledger, pytest.raises(Refusal, match=match) as refusal:
        next(run(PLAN, model, Labelled(), Streams.secure(1), ledger=ledger))
    assert "7" not in str(refusal.value).replace("17", "")
    assert (
        refusal.value.__context__ is None or refusal.value.__suppress_context__ or "out of bounds" not in repr(refusal)
    )
    assert read(tmp_path / "ledger").charged == 0
    labels[:] = 7
    with pytest.raises(Refusal, match="20 records or more"):
        next(run(PLAN, model, Labelled(), Streams.secure(1)))


def test_a_mistake_that_is_no_records_own_is_shown_as_it_is():
    def loss(m, r):
        if len(r) > 1:
            raise ArithmeticError("at one record at a time it works")
        return soft(m, r)

    with pytest.raises(ArithmeticError):
        next(run(PLAN, ModuleModel(line(), loss), X, Streams.secure(1)))


ROWS = [{"input_ids": list(range(5, 8 + (3 * i) % 8)), "label": i % 2} for i in range(30)]  # of 3 to 10 tokens
PADDED = [{"input_ids": [*r["input_ids"], *[0] * (12 - len(r["input_ids"]))], "label": r["label"]} for r in ROWS]


def classifier(**options):
    torch.manual_seed(0)
    net = transformers.BertForSequenceClassification(transformers.BertConfig(**SIZES))

    def loss(m, r):
        ids = r["input_ids"]
        ids = (
            ids if isinstance(ids, torch.Tensor) else pad_sequence([torch.tensor(one) for one in ids], batch_first=True)
        )
        logits = m(input_ids=ids, attention_mask=(ids != 0).long()).logits
        return cross_entropy(logits.double(), torch.as_tensor(r["label"]), reduction="none")

    return ModuleModel(net, loss, ["classifier.*"], **options)


class Wrapping:
    """``change`` of what a data set hands out."""

    def __init__(self, inner, change):
        self.inner, self.change = inner, change

    def __len__(self):
        return len(self.inner)

    def __getitem__(self, rows):
        return self.change(self.inner[rows])


def collated(got):
    ids = pad_sequence([torch.tensor(one) for one in got["input_ids"]], batch_first=True)
    return {"input_ids": ids, "label": torch.tensor(got["label"])}


RAGGED, EVEN = Dataset.from_list(ROWS), Dataset.from_list(PADDED)
TENSORS = EVEN.with_format("torch")
HANDED_OUT = {
    "ragged lists": (RAGGED, 1),
    "even lists": (EVEN, 1),
    "tensors": (TENSORS, 8),
    "a batch encoding": (Wrapping(TENSORS, lambda got: transformers.BatchEncoding(dict(got))), 8),
}


@pytest.mark.parametrize(("data", "rows"), HANDED_OUT.values(), ids=HANDED_OUT)
@pytest.mark.parametrize("size", [None, 8])
def test_what_libraries_of_data_sets_hand_out_is_trained_on(data, rows, size, recwarn):
    model = classifier(physical_batch_size=size)
    assert len(list(run(PLAN, model, data, Streams.secure(1)))) == 4
    change = check_independence(model, data)
    said = [str(w.message) for w in recwarn if "one record at a time" in str(w.message)]
    if size is None:
        assert change < 1e-6
        assert not said
    else:
        assert change == 0.0
        assert set(model._rows.values()) == {rows}
        assert len(said) == (rows == 1)


def test_padding_to_the_longest_of_the_batch_is_refused_where_bits_are_promised():
    data = Wrapping(RAGGED, collated)
    assert len(list(run(PLAN, classifier(), data, Streams.secure(1)))) == 4
    with pytest.raises(Refusal, match="Pad all records to one length"):
        next(run(PLAN, classifier(physical_batch_size=8), data, Streams.secure(1)))


FAMILIES = {
    "gpt2": lambda t: t.GPT2LMHeadModel(
        t.GPT2Config(vocab_size=100, bos_token_id=1, eos_token_id=2, n_layer=2, n_head=2, n_embd=32)
    ),
    "llama": lambda t: t.LlamaForCausalLM(t.LlamaConfig(**SIZES)),
    "qwen2": lambda t: t.Qwen2ForCausalLM(t.Qwen2Config(**SIZES, num_key_value_heads=2)),
    "opt": lambda t: t.OPTForCausalLM(
        t.OPTConfig(vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, ffn_dim=64,
                    word_embed_proj_dim=32)
    ),
    "pythia": lambda t: t.GPTNeoXForCausalLM(t.GPTNeoXConfig(**SIZES, bos_token_id=1, eos_token_id=2)),
    "bert": lambda t: t.BertForMaskedLM(t.BertConfig(**SIZES)),
    "roberta": lambda t: t.RobertaForMaskedLM(t.RobertaConfig(**SIZES)),
    "t5": lambda t: t.T5ForConditionalGeneration(
        t.T5Config(vocab_size=100, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, decoder_start_token_id=0)
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:The rows of a block")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [None, 4])
@pytest.mark.parametrize("form", ["tensor", "data set"])
def test_an_empty_batch_reaches_no_model_and_no_data(family, size, form):
    """Kills: a run that ends in a transformer's own error when nobody is drawn."""
    transformers.utils.logging.set_verbosity_error()
    torch.manual_seed(0)
    ids = torch.arange(12 * 8).view(12, 8) % 90 + 5
    data = ids if form == "tensor" else Wrapping(Dataset.from_dict({"ids": ids.tolist()}).with_format("torch"), dict)
    seen = []

    def loss(m, r):
        r = r if form == "tensor" else r["ids"]
        seen.append(len(r))
        more = {"labels": r} if family == "t5" else {}
        return cross_entropy(m(input_ids=r, **more).logits.transpose(1, 2).double(), r, reduction="none").mean(1)

    plan = dpzero(n=12, batch_size=1, steps=8, step_size=1e-3, zo_eps=1e-3, **NOISE)
    model = ModuleModel(FAMILIES[family](transformers), loss, physical_batch_size=size)
    streams = Streams.not_private(1, 3)
    batches = plan.sampler.batches(12, range(8), streams.private)
    assert not all(len(batch) for batch in batches)
    assert len(list(run(plan, model, data, streams))) == 8
    assert 0 not in seen
    assert model.losses(ids[:0] if form == "tensor" else {"ids": ids[:0]}).shape == (0,)
