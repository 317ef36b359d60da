"""A record's value is its own, bit for bit: other mates, order, position, duplicates, split; and what breaks it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import dpzo
from dpzo.errors import Refusal
from dpzo.models import prompted as prompted_room
from dpzo.models.answers import AnswerModel
from dpzo.models.encoding import Encoder
from dpzo.models.independence import check_independence, couples_records, refuse_coupling, routes
from dpzo.models.load import load
from dpzo.models.module import ModuleModel
from dpzo.models.prompted import PromptedModel
from dpzo.models.quadratic import Quadratic
from dpzo.models.rescaled import Rescaled
from dpzo.models.shapes import MULTIPLE, filled, same_bits, treats_rows_alike, width
from dpzo.tasks import Example, get_task

Maker = Callable[..., Any]
Texts = tuple[Example, ...]
ALL = ("*",)
LONG = Example(("a good plot It was great actors dull film " * 12,), 0)
WITH_TAIL = ("llama", "mistral", "qwen2", "bert", "roberta")
PATHS = [
    *((family, ALL) for family in (*WITH_TAIL, "opt", "gpt2", "gpt_neox")),
    *((family, what) for family in WITH_TAIL for what in ("tail", "late")),
]
NAMES = [f"{family}-{'all' if what == ALL else what}" for family, what in PATHS]


def keeps_every_bit(model: Any, encode: Callable[[Any], Any], texts: Texts, seed: int = 0) -> None:
    records, n = encode(texts), len(texts)
    alone = torch.cat([model.losses(records[np.array([i])]) for i in range(n)])
    assert len(set(alone.tolist())) > n // 2  # the texts matter
    rng = np.random.default_rng(seed)
    groups = [np.arange(n), np.arange(n)[::-1].copy(), rng.permutation(n), rng.integers(n, size=150)]
    groups += [np.flatnonzero(rng.random(n) < 0.5) for _ in range(4)]  # other mates, other positions
    for rows in groups:
        assert torch.equal(model.losses(records[rows]), alone[rows])
    for cut in range(1, n):  # any split of a logical batch
        halves = model.losses(records[np.arange(cut)]), model.losses(records[np.arange(cut, n)])
        assert torch.equal(torch.cat(halves), alone)
    # Encoded in other company: what is cached of a record is its own too.
    order = rng.permutation(n)
    assert torch.equal(model.losses(encode(tuple(texts[i] for i in order[: n // 2]))), alone[order[: n // 2]])


@pytest.mark.parametrize(("family", "what"), PATHS, ids=NAMES)
def test_a_loss_is_its_records_own(prompted: Maker, examples: Texts, family: str, what: Any) -> None:
    """Kills: padding to the batch's longest; batches of any size."""
    model = prompted(family, what)
    assert couples_records(model) is None
    keeps_every_bit(model, model.encode, (*examples, LONG))


@pytest.mark.parametrize("size", [1, 2, 3, 8, 16])
@pytest.mark.parametrize("what", [ALL, "tail"], ids=["all", "tail"])
def test_a_loss_is_its_records_own_in_physical_batches_of_any_size(
    prompted: Maker, examples: Texts, size: int, what: Any
) -> None:
    model = prompted("bert", what, physical_batch_size=size, cut_batch_size=size)
    keeps_every_bit(model, model.encode, examples)


@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
@pytest.mark.parametrize("size", [1, 4])
def test_the_score_of_a_whole_answer_is_its_records_own(
    prompted: Maker, examples: Texts, family: str, size: int
) -> None:
    model = prompted(family, kind=AnswerModel, physical_batch_size=size)
    keeps_every_bit(model, model.encode, examples)


def test_batches_of_any_size_would_couple_records() -> None:
    """The reason for all this: a plain matrix product gives a row other bits in another shape."""
    x, layer = torch.arange(577 * 64.0).sin().view(64, 577), nn.Linear(577, 300)
    nn.init.uniform_(layer.weight, -1, 1, generator=torch.Generator().manual_seed(0))
    model = ModuleModel(layer, lambda m, r: m(r).square().sum(1))
    whole = model.losses(x)
    parts = [torch.cat([model.losses(part) for part in x.split(size)]) for size in (1, 3, 5)]
    assert not all(torch.equal(whole, part) for part in parts)
    assert model.couples_records is not None
    assert "sensitivity" in model.couples_records


@pytest.mark.parametrize("kind", ["body", "tail"])
def test_rows_that_a_kernel_treats_unlike_are_computed_one_at_a_time(
    prompted: Maker, examples: Texts, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A kernel that adds the row's number times an ulp. Kills: a shape that is used untried."""
    model = prompted("bert", "late" if kind == "tail" else ALL)
    layer = model.model.cls.predictions.transform if kind == "tail" else model.model.bert.encoder.layer[0].output.dense
    seen = []

    def unlike(module: Any, inputs: Any, out: torch.Tensor) -> torch.Tensor:
        seen.append(len(out))
        return out * (1 + 1e-6 * torch.arange(len(out)).view(-1, *[1] * (out.ndim - 1)))

    layer.register_forward_hook(unlike)
    keeps_every_bit(model, model.encode, examples)
    assert {1, 64 if kind == "tail" else 4} <= set(seen)
    # Without the trial the same kernel breaks the promise.
    monkeypatch.setattr(prompted_room, "treats_rows_alike", lambda compute, size, trials: True)
    careless = PromptedModel(model.model, model.encoder, tuple(model.params))
    with pytest.raises(AssertionError):
        keeps_every_bit(careless, careless.encode, examples)


def test_a_record_that_fills_the_model_is_its_own(prompted: Maker) -> None:
    """One record without any padding beside others that have some: they must not decide how it is attended to."""
    model = prompted("gpt2")
    model.encoder.task = dpzo_task = get_task("mr")
    texts = tuple(Example(("dull " * k + "film",), 0) for k in (20, 21, 22, 23, 24, 25, 26, 27))
    longest = max(map(len, model.encoder.encode(texts).ids))
    assert dpzo_task.max_length > longest
    model.model.config.max_position_embeddings = longest
    keeps_every_bit(model, model.encode, texts)


@given(length=st.integers(1, 600), limit=st.none() | st.integers(1, 600))
def test_a_width_holds_its_record_with_some_padding_and_never_exceeds_the_limit(length: int, limit: int | None) -> None:
    wide = width(length, limit)
    assert wide >= length
    if limit is None or length < limit:
        assert wide > length
        assert wide <= length + MULTIPLE
    if limit is not None and length <= limit:
        assert wide <= limit


@given(count=st.integers(0, 40), size=st.integers(1, 9))
def test_blocks_are_full_and_hold_every_row_once(count: int, size: int) -> None:
    rows = np.arange(count) + 100
    blocks = list(filled(rows, size))
    assert all(len(block) == size and 1 <= real <= size and set(block) <= set(rows) for block, real in blocks)
    assert np.array_equal(np.concatenate([rows[:0], *(block[:real] for block, real in blocks)]), rows)


def test_the_same_bits_are_more_than_equal_numbers() -> None:
    nan, zero = torch.tensor([float("nan"), 1.0]), torch.zeros(2)
    assert same_bits(nan, nan.clone())
    assert not same_bits(zero, -zero)
    assert not same_bits(zero, zero[:1])
    assert not same_bits(torch.ones(1), torch.ones(1) + 2**-23)


def test_rows_are_tried_at_every_place_beside_copies_and_beside_others() -> None:
    base = torch.arange(1.0, 5.0)

    def kernel(couple: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Any], torch.Tensor]:
        return lambda trials: couple(base[torch.tensor(trials)])

    assert treats_rows_alike(kernel(lambda x: x.square()), 6, trials=3)
    assert not treats_rows_alike(kernel(lambda x: x * (1 + 1e-7 * (torch.arange(len(x)) == 4))), 6, trials=3)
    assert not treats_rows_alike(kernel(lambda x: x + 1e-6 * x.mean()), 6, trials=3)  # copies alone would not tell
    assert not treats_rows_alike(kernel(lambda x: x / x.max()), 6, trials=3)
    assert treats_rows_alike(kernel(lambda x: x / x.max()), 1, trials=3)  # alone there is nobody to depend on


def mlp(width: int = 31, out: int = 2) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(width, 33), nn.Tanh(), nn.Linear(33, out))


def entropy(module: Any, records: Any) -> torch.Tensor:
    return nn.functional.cross_entropy(module(records["x"]), records["y"], reduction="none")


RAW = {"x": torch.randn(40, 31, generator=torch.Generator().manual_seed(1)), "y": torch.arange(40) % 2}


def of_form(form: str) -> tuple[Any, Callable[[Any, Any], torch.Tensor]]:
    """The same records in every form that is picked from by index, with the loss that reads them."""
    x, y = RAW["x"], RAW["y"]
    if form == "dict":
        return RAW, entropy
    if form == "tuple":
        return (x, y), lambda m, r: entropy(m, {"x": r[0], "y": r[1]})
    if form == "array":
        return x.numpy(), lambda m, r: m(torch.from_numpy(r)).square().sum(1)
    if form == "tensor":
        return x, lambda m, r: m(r).square().sum(1)

    class Listed(list):
        def __getitem__(self, rows: Any) -> Any:
            return Listed(list.__getitem__(self, i) for i in rows)

    return Listed(x), lambda m, r: torch.stack([m(one).square().sum() for one in r])


@pytest.mark.parametrize("size", [1, 2, 5, 16, 64])
@pytest.mark.parametrize("form", ["dict", "tuple", "array", "tensor", "listed"])
def test_a_modules_losses_are_each_records_own_in_blocks(form: str, size: int) -> None:
    """31 numbers in, 2 out: a shape whose rows the matrix kernels here do not all treat alike."""
    records, loss = of_form(form)
    model = ModuleModel(mlp(), loss, physical_batch_size=size)
    assert model.couples_records is None
    assert check_independence(model, records) == 0.0
    plain = ModuleModel(mlp(), loss)
    torch.testing.assert_close(model.losses(records), plain.losses(records), atol=1e-5, rtol=1e-5)
    assert check_independence(plain, records) < 1e-5


def test_blocks_are_of_exactly_the_size_that_was_asked_for() -> None:
    seen = []

    def loss(module: Any, records: torch.Tensor) -> torch.Tensor:
        seen.append(len(records))
        return module(records).sum(1)

    model = ModuleModel(nn.Linear(32, 2), loss, physical_batch_size=8)
    assert model.losses(torch.ones(20, 32)).shape == (20,)
    assert set(seen) == {8}
    assert model.losses(torch.ones(0, 32)).shape == (0,)


@pytest.mark.parametrize("size", [0, -1, 2.0, True, "8"])
def test_a_size_that_is_no_number_of_rows_is_refused(prompted: Maker, size: Any) -> None:
    with pytest.raises(Refusal, match="a whole number of rows"):
        ModuleModel(mlp(), entropy, physical_batch_size=size)
    with pytest.raises(Refusal, match="a whole number of rows"):
        prompted("bert", physical_batch_size=size)


def test_what_wraps_a_model_passes_its_promise_on() -> None:
    promised, plain = ModuleModel(mlp(), entropy, physical_batch_size=4), ModuleModel(mlp(), entropy)
    for model, told in ((promised, None), (plain, plain.couples_records)):
        scaled = Rescaled(model, {name: torch.ones_like(t) for name, t in model.params.items()})
        assert couples_records(scaled) == told
    assert "rounding" in (couples_records(Quadratic(torch.ones(3), torch.zeros(3))) or "")
    assert "rounding" in (couples_records(object()) or "")  # a model that says nothing promises nothing


def batch_norm_in_use(module: nn.Module, records: Any) -> torch.Tensor:
    module.train()
    return entropy(module, records)


def in_batch_mean(module: nn.Module, records: Any) -> torch.Tensor:
    losses = entropy(module, records)
    return losses - losses.mean()


def mean_over_the_batch(module: nn.Module, records: Any) -> torch.Tensor:
    return entropy(module, records).mean().expand(len(records["y"]))


@pytest.mark.parametrize("loss", [batch_norm_in_use, in_batch_mean, mean_over_the_batch])
def test_the_check_catches_what_looks_across_records(loss: Callable[..., torch.Tensor]) -> None:
    normed = nn.Sequential(mlp(out=4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    with pytest.raises(Refusal, match="losses that are each record's own; got one that changes by"):
        check_independence(ModuleModel(normed, loss), RAW)
    assert check_independence(ModuleModel(normed.eval(), entropy), RAW) < 1e-5


def test_one_at_a_time_a_mean_over_the_batch_is_the_records_own_loss() -> None:
    """Made-up records show that this loss looks across rows, so it meets no mates at all."""
    model = ModuleModel(nn.Linear(31, 2), mean_over_the_batch, physical_batch_size=4)
    assert check_independence(model, RAW) == 0.0
    own = ModuleModel(model.module, entropy, physical_batch_size=1)
    assert torch.equal(model.losses(RAW), own.losses(RAW))


def test_the_check_holds_a_promise_to_the_bit_and_takes_rounding_elsewhere() -> None:
    class Ulp:
        params, couples_records = dpzo.ModuleModel(mlp(), entropy).params, None

        def losses(self, records: torch.Tensor) -> torch.Tensor:
            return records[:, 0].double() + 1e-12 * len(records)

    with pytest.raises(Refusal, match="changes by"):
        check_independence(Ulp(), RAW["x"])
    Ulp.couples_records = "by rounding"
    assert 0 < check_independence(Ulp(), RAW["x"]) < 1e-9
    with pytest.raises(Refusal, match="at least two records"):
        check_independence(Ulp(), RAW["x"][:1])


def test_the_check_reads_losses_that_are_not_finite() -> None:
    x = RAW["x"].clone()
    x[3], x[5] = float("nan"), float("inf")
    model = ModuleModel(mlp(), lambda m, r: r.sum(1), physical_batch_size=4)
    assert check_independence(model, x) == 0.0
    spread = ModuleModel(mlp(), lambda m, r: r.sum(1) + 0 * r.sum())
    with pytest.raises(Refusal, match="changes by"):
        check_independence(spread, x)


def test_a_batch_norm_without_running_statistics_is_refused() -> None:
    for layer in (nn.BatchNorm1d(2, track_running_stats=False), nn.SyncBatchNorm(2, track_running_stats=False)):
        with pytest.raises(Refusal, match="a batch norm"):
            ModuleModel(nn.Sequential(nn.Linear(31, 2), layer), entropy)


SWITCH = transformers.SwitchTransformersConfig(
    vocab_size=50, d_model=16, d_kv=4, d_ff=16, num_layers=2, num_decoder_layers=2, num_heads=2, num_experts=2,
    num_sparse_encoder_layers=1, num_sparse_decoder_layers=1, expert_capacity=4,
)  # fmt: skip


def mixtral(tokenizer: Any) -> Any:
    torch.manual_seed(0)
    return transformers.MixtralForCausalLM(
        transformers.MixtralConfig(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=24, num_hidden_layers=2, num_local_experts=4,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=300,
        )
    )  # fmt: skip


def test_experts_that_drop_tokens_are_refused_and_others_see_one_record_at_a_time(
    prompted: Maker, examples: Texts
) -> None:
    switch = transformers.SwitchTransformersForConditionalGeneration(SWITCH)
    with pytest.raises(Refusal, match=r"drop tokens beyond a capacity \(expert_capacity"):
        ModuleModel(switch, entropy)
    encoder = prompted("llama").encoder
    with pytest.raises(Refusal, match="drop tokens beyond a capacity"):
        PromptedModel(switch, encoder)
    inner = mixtral(encoder.tokenizer)
    refuse_coupling(inner)
    assert routes(inner.config)
    assert not routes(prompted("bert").model.config)
    model = PromptedModel(inner, encoder, physical_batch_size=16)
    assert model.physical_batch_size == 1
    keeps_every_bit(model, model.encode, examples)


PLAN = dpzo.dpzero(
    n=12, steps=6, step_size=1e-3, zo_eps=1e-3, clip_threshold=1.0, batch_size=6,
    noise_multiplier=0.5, relation=dpzo.Relation.ADD_REMOVE,
)  # fmt: skip


class InMicroBatches:
    """Any logical batch through ``model`` in micro-batches of ``size``, from its end."""

    def __init__(self, model: Any, size: int) -> None:
        self.model, self.size, self.params = model, size, model.params

    def losses(self, records: Any) -> torch.Tensor:
        n = len(records)
        starts = range(n - n % self.size, -1, -self.size)
        parts = {start: self.model.losses(records[np.arange(start, min(start + self.size, n))]) for start in starts}
        return torch.cat([parts[start] for start in sorted(parts)])


def digests(make: Callable[[], Any], encode: Callable[[Any], Any]) -> list[str]:
    told = []
    for size in (1, 2, 5, 1000):
        model = make()
        steps = dpzo.run(PLAN, InMicroBatches(model, size), encode(model), dpzo.Streams.not_private(1, 2))
        told.append(dpzo.digest(steps))
    return told


@pytest.mark.parametrize("what", [ALL, "tail", "late"], ids=["all", "tail", "late"])
def test_a_run_in_micro_batches_releases_the_same_bits(prompted: Maker, examples: Texts, what: Any) -> None:
    assert len(set(digests(lambda: prompted("bert", what), lambda model: model.encode(examples)))) == 1


@pytest.mark.assets
@pytest.mark.parametrize("trainable", [("*",), ("cls.predictions.transform.*",)], ids=["all", "late"])
def test_bert_tiny_keeps_every_bit_and_runs_alike_in_micro_batches(trainable: tuple[str, ...]) -> None:
    task = get_task("sst2")
    words = ("a", "gorgeous", "witty", "film", "dull", "and", "slow", "plot", "that", "i", "would", "watch", "again")
    texts = tuple(Example((" ".join((words * 4)[i : 3 * i + 2]),), i % 2) for i in range(12))

    def made() -> PromptedModel:
        one = load("bert-tiny")
        return PromptedModel(one.model, Encoder(one.tokenizer, task, task.masked, masked=True), trainable)

    model = made()
    keeps_every_bit(model, model.encode, texts)
    assert len(set(digests(made, lambda model: model.encode(texts)))) == 1


@pytest.mark.assets
def test_smollm2_keeps_every_bit() -> None:
    one, task = load("smollm2-135m"), get_task("mr")
    encoder = Encoder(one.tokenizer, task, task.causal_prompt("sentiment"), masked=False)
    texts = tuple(Example(("a gorgeous film . " * k,), k % 2) for k in (1, 2, 4))
    model = PromptedModel(one.model, encoder)
    assert check_independence(model, model.encode(texts)) == 0.0


def test_a_float64_model_scores_in_float64(loaded: Any, prompted: Maker, examples: Texts) -> None:
    for family, what in (("bert", ALL), ("llama", "tail"), ("gpt_neox", ALL)):
        single = prompted(family, what)
        double = PromptedModel(loaded(family).model.double(), single.encoder, tuple(single.params))
        records = double.encode(examples)
        scores = double.scores(records)
        assert scores.dtype == torch.float64
        torch.testing.assert_close(scores.float(), single.scores(single.encode(examples)), atol=1e-5, rtol=1e-5)
        assert check_independence(double, records) == 0.0


@pytest.mark.parametrize(("family", "what"), [("bert", ALL), ("llama", "late"), ("opt", ALL), ("gpt_neox", ALL)])
def test_no_examples_are_no_records(prompted: Maker, family: str, what: Any) -> None:
    model = prompted(family, what)
    records = model.encode([])
    assert len(records) == 0
    assert model.losses(records).shape == (0,)
    assert model.scores(records).shape == (0, 2)
    assert model.losses(records).dtype == torch.float64
    some = model.encode([Example(("film",), 0)])
    assert len(some.join(records)) == 1
