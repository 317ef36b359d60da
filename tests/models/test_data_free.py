"""The data-free output of a model: a function of all its weights, made of no data; and the scores taken from it."""

from itertools import pairwise

import pytest
import torch
from torch import nn

import dpzo
from dpzo import scores
from dpzo.models.answers import AnswerModel
from dpzo.models.encoding import Encoder
from dpzo.models.load import load
from dpzo.models.module import ModuleModel
from dpzo.models.prompted import PromptedModel
from dpzo.models.quadratic import Quadratic
from dpzo.models.rescaled import Rescaled
from dpzo.models.users import UserModel
from dpzo.scores import SCORES
from dpzo.tasks import get_task

FAMILIES = ("bert", "roberta", "opt", "gpt2", "gpt_neox", "llama", "qwen2", "granite")
by_family = pytest.mark.parametrize("family", FAMILIES)


def gradients(model, **options):
    """Of the data-free output with respect to every weight, by name."""
    named = dict(model.model.named_parameters())
    for t in named.values():
        t.requires_grad_(True)
    slopes = torch.autograd.grad(model.data_free(**options), list(named.values()), allow_unused=True)
    return dict(zip(named, slopes, strict=True))


@by_family
def test_every_weight_has_a_part_in_it(prompted, family):
    # Mutants: no_grad or inference_mode; the label words' logits alone; equal tokens (queries and keys drop out).
    model = prompted(family)
    first = model.data_free()
    assert first.shape == ()
    assert torch.equal(first, model.data_free())  # dropout of a half is off
    slopes = gradients(model)
    out = model.model.get_output_embeddings().weight
    every_row = next(slopes[name] for name, t in model.model.named_parameters() if t is out)
    assert every_row.abs().amax(1).min() > 1e-6  # all logits count, not the label words' alone
    for name, slope in slopes.items():
        # A key's bias moves all of a query's logits alike, which softmax does not see.
        assert slope is not None, name
        assert slope.abs().max() > 1e-6 or "bias" in name, name


@by_family
def test_one_token_leaves_attention_nothing_to_choose(prompted, family):
    slopes = gradients(prompted(family), one_token=True)
    queries = [name for name in slopes if any(part in name for part in (".query.w", "q_proj.w", ".key.w", "k_proj.w"))]
    assert queries or family in ("gpt2", "gpt_neox")  # theirs are in one tensor with the values
    for name in queries:
        assert slopes[name].abs().max() < 1e-6
    others = [name for name in slopes if any(part in name for part in (".value.w", "v_proj.w", "c_attn.w"))]
    assert others or family == "gpt_neox"
    assert all(slopes[name].abs().max() > 1e-3 for name in others)


def test_the_text_is_of_distinct_ordinary_tokens_spread_over_the_vocabulary(prompted):
    model = prompted("llama")
    text, special = model._made_up_text(), model.encoder.tokenizer.all_special_ids
    gaps = {b - a for a, b in pairwise(text)}
    assert len(text) == 64
    assert max(gaps) - min(gaps) <= 1 + len(special)
    assert text[0] < 2 * max(gaps) + len(special)
    assert text[-1] >= len(model.encoder.tokenizer) - 2 * max(gaps)


def test_special_tokens_are_never_in_it(prompted, monkeypatch):
    model = prompted("llama")
    monkeypatch.setattr("dpzo.models.prompted._MADE_UP", 10_000)
    model.model.config.max_position_embeddings = 20_000
    everything = set(range(len(model.encoder.tokenizer)))
    assert set(model._made_up_text()) == everything - set(model.encoder.tokenizer.all_special_ids)


def test_a_short_model_gets_a_shorter_text(prompted):
    model = prompted("opt")
    model.model.config.max_position_embeddings = 20
    assert len(set(model._made_up_text())) == 10


@pytest.mark.parametrize("what", ["late", "tail"])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_cut_does_not_change_it(prompted, family, what):
    cut, whole = prompted(family, what), prompted(family)
    assert cut.trains_tail_only
    assert torch.equal(cut.data_free(), whole.data_free())
    for model in (cut, whole):
        model.model.double()
    torch.testing.assert_close(cut.data_free_tail()(), whole.data_free())  # kills: no bias of the output embedding
    part, full = scores.synflow(cut, 1.0), scores.synflow(whole, 1.0)
    assert list(part) == list(cut.params)
    most = max(full[name].max() for name in part)
    for name, score in part.items():
        torch.testing.assert_close(score, full[name] / most, rtol=1e-4, atol=1e-7)


class Own:
    """A model of a user's own, with ``data_free`` and no tail."""

    def __init__(self, model):
        self.params, self.network, self.data_free = model.params, model.network, model.data_free


def same_scores(model, keep=0.1):
    """Every score that looks at R, by the tail and by whole passes."""
    looking = {
        "synflow": lambda of: scores.synflow(of, keep, 10),
        "zo-grasp": lambda of: scores.zo_grasp(of, 0, 1e-2, 2),
        "authors": lambda of: scores.authors(of, 0, 1e-2),
    }
    if list(model.params) == ["model.norm.weight"]:  # R is linear in it, and a second difference rounding alone
        del looking["zo-grasp"]
    for name, score in looking.items():
        tail, whole = score(model), score(Own(model))
        most = max(float(s.abs().max()) for s in whole.values())
        assert most > 0
        for key, want in whole.items():
            torch.testing.assert_close(tail[key], want, rtol=1e-5, atol=1e-6 * most)
            assert name != "synflow" or torch.equal(tail[key] > 0, want > 0)


@pytest.mark.parametrize("what", ["late", "tail"])
@pytest.mark.parametrize("family", ["bert", "roberta", "llama", "mistral", "qwen2"])
def test_scores_behind_a_cut_are_those_of_whole_passes(prompted, family, what):
    # Mutants: a state kept from one score to the next, or made before the weights are linearised; rows or biases of
    # the output embedding left out; the head left out.
    model = prompted(family, what)
    same_scores(model)
    out, into = model.model.get_output_embeddings(), model.model.get_input_embeddings()
    for t in (into.weight, model.model.base_model.get_parameter(below(family)), out.weight, *model.params.values()):
        with torch.no_grad():
            t *= 1 + torch.arange(len(t)).view(-1, *[1] * (t.ndim - 1)) / len(t)
        same_scores(model)


def below(family):
    """A weight of the first layer."""
    masked = family in ("bert", "roberta")
    return "encoder.layer.0.output.dense.weight" if masked else "layers.0.mlp.down_proj.weight"


@pytest.mark.parametrize("family", ["bert", "llama", "qwen2"])
def test_what_is_trained_below_every_cut_is_no_constant(prompted, family):
    # Mutants: a cut where something is trained after it, whatever else is; the output embedding for a constant.
    lower, after = f"*{below(family)}", "cls.predictions.transform.*" if family == "bert" else "model.norm.weight"
    whole = prompted(family).model
    out = whole.get_output_embeddings().weight
    named = next(name for name, t in whole.named_parameters() if t is out)
    for other in (lower, named):
        model = prompted(family, (after, other))
        same_scores(model, keep=0.5)
        assert all(float(s.max()) > 0 for s in scores.synflow(model, 1.0).values())


def test_behind_a_cut_the_rest_is_computed_once_for_a_score(prompted):
    model, seen = prompted("llama", "tail"), []
    model.model.get_input_embeddings().register_forward_hook(lambda *_: seen.append(1))
    scores.synflow(model, 0.1, 10)
    scores.synflow(UserModel(model), 0.1, 10)
    assert len(seen) == 2
    scores.synflow(UserModel(Own(model)), 0.1, 10)
    assert len(seen) == 12


def test_a_data_free_output_of_ones_own_is_the_one_that_is_scored(prompted):
    class Mine(PromptedModel):
        def data_free(self, *, one_token=False):
            return super().data_free(one_token=True)

    mine, short = prompted("llama", "tail", kind=Mine), Own(prompted("llama", "tail", kind=Mine))
    for name, score in scores.synflow(mine, 1.0).items():
        assert torch.equal(score, scores.synflow(short, 1.0)[name])


def test_it_does_not_depend_on_the_task(prompted):
    assert torch.equal(prompted("llama").data_free(), prompted("llama", task_name="mr").data_free())
    assert torch.equal(prompted("llama").data_free(), prompted("llama", kind=AnswerModel).data_free())


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_synflow_is_the_slope_times_the_weight_also_for_tied_weights(prompted, family):
    # Against central differences in float64. Mutants: a tied tensor whose one use is left out, or which stands twice;
    # signed weights; derivatives at the weights instead of at their absolute values.
    model = prompted(family)
    out, into = model.model.get_output_embeddings().weight, model.model.get_input_embeddings().weight
    assert out is into
    score = scores.synflow(model, 1.0)
    assert sum(t is into for t in model.params.values()) == 1
    text, network = model._made_up_text(), model.model.double()
    tied = next(name for name, t in model.params.items() if t is model.model.get_input_embeddings().weight)
    with torch.no_grad():
        for t in network.parameters():
            t.data = t.data.abs()
        slopes, told = [], []
        for name, t in model.params.items():
            rows = (text[0], text[-1], 0) if name == tied else (0, t.shape[0] - 1)
            for row in rows:
                at = t.data.view(len(t), -1)[row]
                weight, step = at[0].item(), 1e-5 * at[0].item()
                ends = []
                for side in (1, -1):
                    at[0] = weight + side * step
                    ends.append(model.data_free().item())
                at[0] = weight
                slopes.append(abs(ends[0] - ends[1]) / 2e-5)
                told.append(score[name].view(len(t), -1)[row, 0].item())
    slopes, told = torch.tensor(slopes, dtype=torch.float64), torch.tensor(told, dtype=torch.float64)
    factor = (slopes @ told) / (told @ told)
    torch.testing.assert_close(slopes / factor, told, rtol=1e-4, atol=float(told.max()) * 1e-6)


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("family", ["bert", "llama", "gpt2"])
def test_every_score_works_on_language_models_without_data(prompted, family, name, monkeypatch):
    model = prompted(family, ("*.0.*",))
    monkeypatch.setattr(PromptedModel, "losses", None)
    monkeypatch.setattr(PromptedModel, "_forward", None)
    before = {n: t.detach().clone() for n, t in model.model.state_dict().items()}
    got = SCORES[name](model, 0.5, 1)
    assert {n: s.shape for n, s in got.items()} == {n: t.shape for n, t in model.params.items()}
    assert all(torch.equal(t, before[n]) for n, t in model.model.state_dict().items())
    assert {t.dtype for t in model.model.parameters()} == {torch.float32}
    assert not any(t.requires_grad for t in model.model.parameters())


@pytest.mark.assets
def test_every_score_on_bert_tiny():
    one, task = load("bert-tiny"), get_task("sst2")
    model = PromptedModel(one.model, Encoder(one.tokenizer, task, task.masked, masked=True))
    before = {n: t.detach().clone() for n, t in model.model.state_dict().items()}
    words, d = model.model.get_input_embeddings().weight, model.params.count
    assert words is model.model.get_output_embeddings().weight
    assert sum(t is words for t in model.params.values()) == 1
    for name, score in SCORES.items():
        few = {
            "synflow": lambda: scores.synflow(model, 0.01, 5),
            "zo-grasp": lambda: scores.zo_grasp(model, 0, 1e-3, 2),
        }
        got = few[name]() if name in few else score(model, 0.01, 0)
        assert sum(s.numel() for s in got.values()) == d
        assert all(torch.isfinite(s).all() for s in got.values())
        if name == "synflow":
            assert sum(int((s > 0).sum()) for s in got.values()) == -(-d // 100)
    assert all(torch.equal(t, before[n]) for n, t in model.model.state_dict().items())


@pytest.mark.assets
def test_bert_tiny_behind_its_cuts():
    one, task = load("bert-tiny"), get_task("sst2")
    encoder = Encoder(one.tokenizer, task, task.masked, masked=True)
    for trained in (("cls.predictions.transform.*",), ("bert.encoder.layer.1.output.*",)):
        model = PromptedModel(one.model, encoder, trained)
        assert model.trains_tail_only
        same_scores(model, keep=0.01)


class Named(nn.Module):
    """A module that takes its input by name and has a float buffer."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.register_buffer("mean", torch.full((3,), 0.5))

    def forward(self, *, x):
        return self.layer(x @ torch.diag(self.mean))


def test_a_module_is_called_in_the_type_of_its_weights():
    module = Named()
    model = ModuleModel(module, None, data_free=lambda m: m(x=torch.ones(1, 3)).sum())
    score = scores.synflow(model, 1.0)["layer.weight"]
    torch.testing.assert_close(score * module.layer.weight.abs().max(), module.layer.weight.abs() * score.max())
    assert module.mean.dtype == torch.float32
    assert not module._forward_pre_hooks


def test_a_module_without_one_or_with_several_numbers_is_refused():
    module = nn.Linear(3, 2)
    with pytest.raises(dpzo.Refusal, match="data_free="):
        ModuleModel(module, None).data_free()
    with pytest.raises(dpzo.Refusal, match=r"shape \(1, 2\)"):
        ModuleModel(module, None, data_free=lambda m: m(torch.ones(1, 3))).data_free()


def test_rescaled_is_evaluated_where_w_stands(prompted):
    plain, inner = prompted("bert", "late"), prompted("bert", "late")
    rescaled = Rescaled(inner, {n: torch.full_like(t, 3.0) for n, t in inner.params.items()})
    assert torch.equal(rescaled.data_free(), plain.data_free())
    for n, t in rescaled.params.items():
        t.fill_(0.1)
        plain.params[n].data += 3.0 * t
    assert torch.equal(rescaled.data_free(), plain.data_free())
    assert torch.equal(rescaled.data_free(one_token=True), plain.data_free(one_token=True))
    with pytest.raises(dpzo.Refusal, match="Quadratic"):
        Rescaled(Quadratic(torch.ones(2), torch.zeros(2)), {"x": torch.ones(2)}).data_free()
