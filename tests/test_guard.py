"""What a run refuses because of the model's state: before the first charge, before a step's, and before its release."""

import copy
import random
from contextlib import nullcontext
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
import torch
from torch import nn

from dpzo import Ledger, ModuleModel, Refusal, Relation, Streams, dpgd_zeroth, dpzero, mezo, run
from dpzo import guard as guard_room
from dpzo.ledger import read
from dpzo.models.quadratic import Quadratic
from dpzo.models.rescaled import Rescaled
from dpzo.models.users import ByUser, UserModel
from dpzo.parameters import Parameters

COMMON = {"n": 12, "steps": 4, "step_size": 1e-2, "zo_eps": 1e-2}
NOISE = {"clip_threshold": 1.0, "noise_multiplier": 1.0, "relation": Relation.ADD_REMOVE}
PLAN = dpzero(**COMMON, **NOISE)
DATA = torch.linspace(-1, 1, 36).view(12, 3)


def module():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))


def each(m, records):
    return m(records)[:, 0].square()


def model():
    return ModuleModel(module(), each, ["3.*"])


def bare(m):
    return m


def rescaled(m):
    return Rescaled(m, {name: torch.ones_like(t) for name, t in m.params.items()})


WRAPPED = pytest.mark.parametrize("wrap", [bare, rescaled, UserModel, lambda m: UserModel(rescaled(m))])


def data_for(m):
    return ByUser(DATA, np.arange(12)) if isinstance(m, UserModel) else DATA


def plan_for(m, plan=PLAN):
    return replace(plan, unit="user") if isinstance(m, UserModel) else plan


def refused(m, match, path=None, data=None, plan=PLAN):
    """The run is refused before anything is charged."""
    plan, data = plan_for(m, plan), data_for(m) if data is None else data
    with Ledger(path, data="d") if path else nullcontext() as ledger, pytest.raises(Refusal, match=match):
        next(run(plan, m, data, Streams.secure(1), ledger=ledger))
    assert path is None or not path.exists() or not path.read_bytes() or read(path).charged == 0


@WRAPPED
def test_a_module_in_training_mode_is_refused_before_anything_is_charged(wrap, tmp_path):
    """Kills: eval mode set once and never looked at again; a look that stops at the module's first level."""
    m = wrap(model())
    inner = m
    while not isinstance(inner, ModuleModel):
        inner = inner.model
    assert len(list(run(plan_for(m), m, data_for(m), Streams.secure(1)))) == 4
    inner.module[2].train()  # a single layer, deep inside
    refused(m, "evaluation mode.*got 2 in training mode", tmp_path / "ledger")
    inner.module.train()
    refused(m, "and 4 more", tmp_path / "ledger")


def test_train_between_two_steps_is_refused_before_the_next_charge(tmp_path):
    """Kills: a look at the beginning of a run only."""
    m = model()
    with Ledger(tmp_path / "ledger") as ledger:
        steps = run(PLAN, m, DATA, Streams.secure(1), ledger=ledger)
        next(steps)
        m.module.train()
        with pytest.raises(Refusal, match="evaluation mode"):
            next(steps)
    assert read(tmp_path / "ledger").charged == 1


def changes():
    def layer(m):
        m.module[3] = nn.Linear(4, 1).eval()

    def weight(m):
        m.module[3].weight = nn.Parameter(m.module[3].weight.detach().clone())

    def frozen(m):
        with torch.no_grad():
            m.module[0].weight.add_(1)

    def buffer(m):
        m.module[1].running_mean = torch.ones(4)

    def removed(m):
        del m.module[0].bias

    return [layer, weight, frozen, buffer, removed]


@pytest.mark.parametrize("change", changes(), ids=lambda change: change.__name__)
def test_what_is_changed_between_two_steps_is_refused_before_the_next_charge(change, tmp_path):
    m = model()
    with Ledger(tmp_path / "ledger") as ledger:
        steps = run(PLAN, m, DATA, Streams.secure(1), ledger=ledger)
        next(steps)
        change(m)
        with pytest.raises(Refusal, match="not charged"):
            next(steps)
    assert read(tmp_path / "ledger").charged == 1


class Keeps(nn.Module):
    """Keeps what it saw last in a buffer, in one of several ways."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.register_buffer("kept", torch.zeros(3))
        self.line = nn.Linear(3, 1)

    def forward(self, records):
        {
            "in place": lambda: self.kept.copy_(records.mean(0)),
            "behind the counter": lambda: self.kept.data.copy_(records.mean(0)),
            "running mean": lambda: nn.functional.batch_norm(
                records, self.kept, torch.ones(3), training=True, momentum=0.5
            ),
            "not": lambda: None,
        }[self.how]()
        return self.line(records)


@pytest.mark.parametrize("how", ["in place", "behind the counter", "running mean"])
@pytest.mark.parametrize("trained", [["line.*"], None], ids=["some", "all"])
def test_a_frozen_tensor_that_a_step_writes_to_is_refused_before_the_steps_release(how, trained, tmp_path, monkeypatch):
    """Whatever wrote it: private data could be read from it. Kills: a look at counters alone."""
    monkeypatch.setattr(guard_room, "_SHARE", 0)  # a close look at each step
    m = ModuleModel(Keeps("not"), each, trained)
    with Ledger(tmp_path / "ledger") as ledger:
        steps = run(PLAN, m, DATA, Streams.secure(1), ledger=ledger)
        for turn in count():
            m.module.how = how if turn else "not"
            if turn:
                monkeypatch.setattr(ledger, "release", lambda step: pytest.fail("released"))
                with pytest.raises(Refusal, match=r"kept, which was written to.*paid for and lost"):
                    next(steps)
                break
            next(steps)
    account = read(tmp_path / "ledger")
    assert (account.charged, len(account.steps)) == (2, 1)


def test_a_frozen_tensor_is_looked_at_after_the_first_step_and_the_last(monkeypatch):
    """However long a look takes. Kills: looks by the clock alone."""
    monkeypatch.setattr(guard_room, "_SHARE", 1e12)
    for turn in (0, PLAN.steps - 1):
        m = ModuleModel(Keeps("not"), each, ["line.*"])
        steps = run(PLAN, m, DATA, Streams.secure(1))
        for index in range(PLAN.steps):
            if index == turn:
                m.module.how = "behind the counter"
                with pytest.raises(Refusal, match="written to"):
                    next(steps)
                break
            next(steps)


def test_contents_are_looked_at_for_a_hundredth_of_the_time(monkeypatch):
    """Kills: a hash of all weights at each step."""
    looks, clock = [], count()
    monkeypatch.setattr(guard_room, "perf_counter", lambda: next(clock) * 1.0)  # a second at each reading
    real = guard_room._content
    monkeypatch.setattr(guard_room, "_content", lambda t: (looks.append(1), real(t))[1])
    m = ModuleModel(Keeps("not"), each, ["line.*"])
    list(run(dpzero(**COMMON | {"steps": 500}, **NOISE), m, DATA, Streams.secure(1)))
    assert (
        len(looks) == 1 + 1 + 4 + 1  # before, after the first step, each 100 s (a step reads once), after the last
    )  # at the beginning, the first step, each 100 s (a step has one reading), the last


def test_contents_tell_every_bit_and_place_of_a_tensor():
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.int8, torch.bool):
        values = (torch.arange(1001) % 2).to(dtype)
        told = guard_room._content(values)
        assert told == guard_room._content(values.clone())
        for place in (0, 500, 1000):
            other = values.clone()
            other[place] = 1 - other[place].int()
            assert guard_room._content(other) != told
    swapped = torch.arange(2.0**19)
    told = guard_room._content(swapped)
    swapped[[0, 2**18 + 1]] = swapped[[2**18 + 1, 0]]
    assert guard_room._content(swapped) != told
    assert guard_room._content(torch.arange(9.0)[1:]) == guard_room._content(torch.arange(1.0, 9.0))


DRAWS = {
    "dropout": lambda m, r: each(m, nn.functional.dropout(r, 0.5, training=True)),
    "torch": lambda m, r: each(m, r) + 0 * torch.rand(len(r)),
    "numpy": lambda m, r: each(m, r) + 0 * float(np.random.rand()),
    "python": lambda m, r: each(m, r) + 0 * random.random(),
}


@pytest.mark.parametrize("loss", DRAWS.values(), ids=DRAWS)
@pytest.mark.parametrize("size", [None, 1, 4])
def test_a_loss_that_draws_from_a_global_generator_is_refused_before_anything_is_charged(loss, size, tmp_path):
    """Whoever seeds it knows the draws, and how many there are is told by other records."""
    m = ModuleModel(nn.Linear(3, 1), loss, physical_batch_size=size)
    refused(m, "draw no random number", tmp_path / "ledger")


@pytest.mark.parametrize("draw", [lambda: torch.rand(1), lambda: np.random.rand(), random.random])
def test_a_draw_in_a_step_is_refused_before_its_release_and_one_between_steps_is_the_callers(draw, monkeypatch):
    monkeypatch.setattr(guard_room, "_SHARE", 0)

    class Drawing:
        drawing = False

        def __len__(self):
            return 12

        def __getitem__(self, rows):
            if self.drawing:
                draw()
            return DATA[rows]

    data = Drawing()
    steps = run(PLAN, model(), data, Streams.secure(1))
    next(steps)
    draw()
    next(steps)
    data.drawing = True
    with pytest.raises(Refusal, match="a look into the data"):
        next(steps)


def test_an_embedding_that_rescales_its_rows_is_refused():
    """In eval mode too, the rows of the tokens that were seen would be told by the weights."""
    for layer in (nn.Embedding(9, 3, max_norm=1.0), nn.EmbeddingBag(9, 3, max_norm=1.0)):
        with pytest.raises(Refusal, match="max_norm"):
            ModuleModel(nn.Sequential(layer, nn.Linear(3, 1)), each)
    m = ModuleModel(nn.Sequential(nn.Embedding(9, 3), nn.Flatten(), nn.Linear(9, 1)), each, ["2.*"])
    tokens = torch.arange(36).view(12, 3) % 9
    assert len(list(run(PLAN, m, tokens, Streams.secure(1)))) == 4
    m.module[0].max_norm = 0.1
    refused(m, "max_norm", data=tokens)


class Own:
    """A model of one's own, with modules in places of all kinds."""

    def __init__(self, place):
        self.net = nn.Linear(3, 1)
        held = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3))
        self.held = {"field": held, "list": [held], "dict": {"a": held}, "none": None}[place]
        self.params = Parameters({"w": self.net.weight})

    def losses(self, records):
        with torch.no_grad():
            return self.net(records)[:, 0].square()


@pytest.mark.parametrize("place", ["field", "list", "dict"])
def test_a_model_of_ones_own_is_looked_at_too(place):
    m = Own(place)
    refused(m, "evaluation mode")
    m.net.eval()
    refused(m, "evaluation mode")
    (m.held if place == "field" else m.held[0] if place == "list" else m.held["a"]).eval()
    assert len(list(run(PLAN, m, DATA, Streams.secure(1)))) == 4


def test_a_model_that_is_a_module_is_looked_at_too():
    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.line = nn.Linear(3, 1)
            self.params = Parameters({"w": self.line.weight})

        def losses(self, records):
            with torch.no_grad():
                return self.line(records)[:, 0].square()

    m = Whole()
    refused(m, "evaluation mode")
    assert len(list(run(PLAN, m.eval(), DATA, Streams.secure(1)))) == 4


def test_tensors_that_are_no_longer_the_models_are_refused(tmp_path):
    """Kills: weights that stand still while epsilon is paid."""

    def reassigned(m):
        m.module[3].weight = nn.Parameter(m.module[3].weight.detach().clone())

    def assigned(m):
        m.module.load_state_dict({k: v.clone() for k, v in m.module.state_dict().items()}, assign=True)

    def copied(m):
        m.module = copy.deepcopy(m.module)

    def fused(m):
        m.module[3] = nn.Linear(4, 1).eval()

    for change in (reassigned, assigned, copied, fused):
        for wrap in (bare, rescaled, UserModel):
            m = model()
            wrapped = wrap(m)
            change(m)
            refused(wrapped, "trained tensors that are the module's own", tmp_path / "ledger")


def test_tensors_that_are_converted_in_place_are_still_the_models():
    m = model()
    m.module.double()
    assert len(list(run(PLAN, m, DATA.double(), Streams.secure(1)))) == 4


def test_an_adapter_in_the_module_is_trained_by_its_own_names():
    peft = pytest.importorskip("peft")
    base = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    wrapped = peft.get_peft_model(base, peft.LoraConfig(target_modules=["0"], lora_dropout=0.1))
    m = ModuleModel(wrapped, each, ["*lora_*"])
    assert len(m.params) == 2
    assert len(list(run(PLAN, m, DATA, Streams.secure(1)))) == 4
    merged = wrapped.merge_and_unload()
    m.module = merged
    refused(m, "trained tensors that are the module's own")


@pytest.mark.parametrize("planner", [dpzero, dpgd_zeroth])
def test_steps_below_the_weights_spacing_are_refused(planner):
    """Kills: epsilon paid for steps that every weight rounds away; a look at step_size alone, without C."""
    m = ModuleModel(nn.Linear(64, 1), each)
    data = torch.randn(12, 64)

    def plan(step_size, C=1.0):
        return planner(**COMMON | {"step_size": step_size}, **NOISE | {"clip_threshold": C})

    refused(m, "steps that can move the weights; got 0 of 65", data=data, plan=plan(1e-12))
    refused(m, "steps that can move the weights", data=data, plan=plan(1e-3, C=1e-9))
    start = m.params.snapshot()
    assert len(list(run(plan(1e-12, C=1e9), m, data, Streams.secure(1)))) == 4
    assert sum(int((m.params[name] != start[name]).sum()) for name in start) > 60


def test_few_weights_that_can_move_are_too_few():
    m = ModuleModel(nn.Linear(1000, 1), each)
    with torch.no_grad():
        m.module.weight.fill_(1.0)
        m.module.weight[0, :5] = 0
        m.module.bias.fill_(1.0)
    plan = dpzero(**COMMON | {"step_size": 1e-10}, **NOISE)
    refused(m, "got 5 of 1,001", data=torch.ones(12, 1000), plan=plan)
    with torch.no_grad():
        m.module.weight[0, :20] = 0
    assert len(list(run(plan, m, torch.ones(12, 1000), Streams.secure(1)))) == 4


def test_mezo_without_a_clip_has_no_bound_on_its_steps():
    m = ModuleModel(nn.Linear(3, 1), each)
    assert len(list(run(mezo(**COMMON | {"step_size": 1e-12}), m, DATA, Streams.secure(1)))) == 4


def test_trained_tensors_that_move_no_loss_are_refused(tmp_path):
    """An adapter that the forward pass leaves out."""

    class Aside(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.adapter = nn.Linear(3, 1), nn.Linear(3, 1)

        def forward(self, records):
            return self.used(records)

    refused(ModuleModel(Aside(), each, ["adapter.*"]), "trained tensors that move the losses", tmp_path / "ledger")
    assert len(list(run(PLAN, ModuleModel(Aside(), each, ["used.*"]), DATA, Streams.secure(1)))) == 4


def test_a_grid_that_swallows_the_derivatives_is_warned_of():
    m = ModuleModel(nn.Linear(3, 1), each)
    coarse = dpzero(**COMMON, **NOISE | {"clip_threshold": 1e10})
    with pytest.warns(UserWarning, match=r"C / 2\*\*24"):
        list(run(coarse, m, DATA, Streams.secure(1)))


@pytest.mark.parametrize("ranks", ["2", "64"])
def test_one_of_several_processes_is_refused(ranks, monkeypatch):
    """Each would spend the whole epsilon on the same data."""
    monkeypatch.setenv("WORLD_SIZE", ranks)
    refused(model(), f"a run in one process; got WORLD_SIZE = {ranks}")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert len(list(run(PLAN, model(), DATA, Streams.secure(1)))) == 4


class ByNumber:
    """Answers one number only, as many data sets do."""

    def __len__(self):
        return 12

    def __getitem__(self, number):
        return list(DATA)[number]


class First(ByNumber):
    """Takes no notice of how many are asked for."""

    def __getitem__(self, rows):
        return DATA[:1]


@pytest.mark.parametrize(
    ("data", "todo"),
    [
        (list(DATA), "tensor"),
        (torch.utils.data.DataLoader(DATA, batch_size=1), "its dataset"),
        (ByNumber(), "default_collate"),
        (torch.utils.data.Subset(DATA.tolist(), range(12)), "default_collate"),
        (First(), "default_collate"),
    ],
    ids=["list", "loader", "by number", "subset", "first"],
)
def test_data_that_no_array_of_indices_picks_from_are_refused_at_the_call(data, todo):
    with pytest.raises(Refusal, match=f"an array of indices picks records from.*{todo}"):
        run(PLAN, model(), data, Streams.secure(1))


def test_a_model_without_modules_costs_and_forbids_nothing():
    data = torch.linspace(-1, 1, 36).view(12, 3)
    assert len(list(run(PLAN, Quadratic(torch.ones(3), torch.zeros(3)), data, Streams.secure(1)))) == 4
