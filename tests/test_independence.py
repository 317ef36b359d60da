"""A run tries its model's independence on public records before the first charge, or its statement says it did not."""

from itertools import product

import numpy as np
import pytest
import torch
import transformers
from torch import nn
from torch.nn.functional import cross_entropy

from dpzo import Ledger, ModuleModel, Refusal, Relation, Streams, dpzero, run
from dpzo.independence import COUPLED, couples_records, limited_capacity, refuse_coupling, routes, trial
from dpzo.ledger import read
from dpzo.models.independence import check_independence
from dpzo.parameters import Parameters
from dpzo.report import Statement, statement

PLAN = dpzero(
    n=12, steps=3, step_size=1e-2, zo_eps=1e-2, clip_threshold=1.0, noise_multiplier=1.0, relation=Relation.ADD_REMOVE
)


class Columns:
    """Records as a dict of columns: five inputs and one of three classes."""

    def __init__(self, first=0):
        x = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
        self.columns = {"x": x, "y": torch.arange(12) % 3 + first}

    def __len__(self):
        return 12

    def __getitem__(self, rows):
        return {name: column[torch.from_numpy(rows)] for name, column in self.columns.items()}


class Across(nn.Module):
    """Attention over the batch axis."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(5, 4), nn.Linear(4, 3)
        self.attention = nn.MultiheadAttention(4, 1, batch_first=True)

    def forward(self, x):
        states = self.inner(x)[None]
        return self.outer(self.attention(states, states, states)[0][0])


def entropy(module, records):
    return cross_entropy(module(records["x"]), records["y"], reduction="none")


def class_weights_of_the_batch(module, records):
    weights = 1 / torch.bincount(records["y"], minlength=3).clamp(min=1).float()
    return cross_entropy(module(records["x"]), records["y"], weight=weights, reduction="none")


def batch_norm_in_use(module, records):
    module.train()
    losses = entropy(module, records)
    module.eval()  # so that nobody can tell from outside
    return losses


def a_generator_of_its_own():
    generator = torch.Generator()
    return lambda m, r: entropy(m, r) + torch.rand(len(r["y"]), generator=generator)


def line():
    torch.manual_seed(0)
    return nn.Linear(5, 3)


def normed():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))


COUPLING = {
    "attention across records": (Across, entropy),
    "class weights of the batch": (line, class_weights_of_the_batch),
    "batch norm in use": (normed, batch_norm_in_use),
    "the batch's mean taken off": (line, lambda m, r: entropy(m, r) - entropy(m, r).mean()),
    "chance": (line, a_generator_of_its_own()),
}


@pytest.mark.parametrize(("make", "loss"), COUPLING.values(), ids=COUPLING)
def test_a_run_refuses_losses_that_depend_on_other_records_before_its_first_charge(make, loss, tmp_path):
    """Kills: a run that never tries; made-up records with one value for every label."""
    torch.manual_seed(0)
    model = ModuleModel(make(), loss)
    with Ledger(tmp_path / "ledger") as ledger, pytest.raises(Refusal, match="losses that are each record's own"):
        next(run(PLAN, model, Columns(), Streams.secure(1), ledger=ledger))
    assert read(tmp_path / "ledger").charged == 0


@pytest.mark.parametrize("name", ["attention across records", "class weights of the batch"])
def test_in_blocks_such_losses_meet_nobody_and_the_fall_to_one_row_is_said(name):
    torch.manual_seed(0)
    make, loss = COUPLING[name]
    model = ModuleModel(make(), loss, physical_batch_size=4)
    with pytest.warns(UserWarning, match="one record at a time"):
        assert len(list(run(PLAN, model, Columns(), Streams.secure(1)))) == 3
    assert check_independence(model, Columns()[np.arange(12)]) == 0.0
    assert set(model._rows.values()) == {1}


def first_line(model):
    made = statement(PLAN, 1e-5, private=True, model=model)
    assert Statement.from_json(made.json()).couples_records == made.couples_records
    return made.markdown().splitlines()[0]


def test_what_could_be_tried_is_accounted():
    for size in (None, 4):
        model = ModuleModel(line(), entropy, physical_batch_size=size)
        list(run(PLAN, model, Columns(), Streams.secure(1)))
        assert couples_records(model) == (None if size else COUPLED)
        assert first_line(model).startswith("**Differentially private**")
    # Classes from 1 on: the loss takes no 0.
    one_based = ModuleModel(line(), lambda m, r: entropy(m, {"x": r["x"], "y": r["y"] - 1}))
    list(run(PLAN, one_based, Columns(first=1), Streams.secure(1)))
    assert couples_records(one_based) == COUPLED


class Spoken:
    """A model of words, which cannot be made up."""

    def __init__(self):
        self.params = Parameters({"w": torch.ones(3)})

    def losses(self, records):
        return torch.stack([self.params["w"].sum() * len(word) for word in records])


class Words:
    def __len__(self):
        return 12

    def __getitem__(self, rows):
        return ["word" * int(row + 1) for row in rows]


def test_what_could_not_be_tried_is_not_accounted_and_the_first_line_says_so():
    model = Spoken()
    assert len(list(run(PLAN, model, Words(), Streams.secure(1)))) == 3
    assert "could not be evaluated (TypeError)" in model.untried
    assert first_line(model).startswith("**NOT ACCOUNTED**")
    model.made_up = lambda rows: ["a" * (row + 1) for row in rows]  # its author knows better
    list(run(PLAN, model, Words(), Streams.secure(1)))
    assert first_line(model).startswith("**Differentially private**")
    model.made_up = None
    list(run(PLAN, model, Words(), Streams.secure(1)))
    assert first_line(model).startswith("**NOT ACCOUNTED**")


def test_a_promise_is_held_to_the_bit():
    class Promising(Spoken):
        couples_records = None
        made_up = staticmethod(lambda rows: ["a" * (row + 1) for row in rows])

        def losses(self, records):
            return super().losses(records).double() + 1e-12 * len(records)

    with pytest.raises(Refusal, match="each record's own"):
        next(run(PLAN, Promising(), Words(), Streams.secure(1)))


def test_a_trial_makes_its_records_without_a_value_of_the_data():
    seen = []

    def loss(module, records):
        seen.append(records["x"].flatten())
        return entropy(module, records)

    data = Columns()
    trial(ModuleModel(line(), loss), data[np.arange(1)])
    assert not np.intersect1d(torch.cat(seen).numpy(), data.columns["x"].numpy()).size


def nets():
    """36 small convolutional networks of ordinary widths."""
    widths = [(1, 8, 16), (3, 7, 13), (3, 16, 33), (1, 5, 64), (3, 32, 10), (2, 9, 24)]
    pools = [lambda: nn.MaxPool2d(2), lambda: nn.AvgPool2d(2), nn.Identity]
    for (first, second, third), norm, pool in product(widths, (False, True), pools):
        torch.manual_seed(0)
        layers = [
            nn.Conv2d(first, second, 3, padding=1),
            *([nn.BatchNorm2d(second)] if norm else []),
            nn.ReLU(),
            pool(),
        ]
        layers += [nn.Conv2d(second, third, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        yield first, nn.Sequential(*layers, nn.Linear(third, 10))


@pytest.mark.filterwarnings("ignore:The rows of a block")
def test_ordinary_convolutions_keep_every_bit_in_blocks_or_take_one_record_at_a_time():
    """A loss may round away, for sixteen records, what it shows for the next. Kills: a trial that looks at losses."""
    draw = torch.Generator().manual_seed(1)
    fallen = 0
    for channels, net in nets():
        records = {"x": torch.randn(24, channels, 12, 12, generator=draw), "y": torch.arange(24) % 10}
        model = ModuleModel(net, entropy, physical_batch_size=8)
        assert check_independence(model, records) == 0.0
        fallen += set(model._rows.values()) == {1}
    assert fallen < 36


def test_a_verdict_holds_for_one_thread_count_type_and_device():
    model = ModuleModel(line(), entropy, physical_batch_size=4)
    records, threads = Columns()[np.arange(12)], torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            model.losses(records)
            model.losses(records)
        assert len(model._rows) == 2
    finally:
        torch.set_num_threads(threads)
    model.module.double()
    model.losses({"x": records["x"].double(), "y": records["y"]})
    assert len(model._rows) == 3


ROUTING = {
    "dbrx": transformers.DbrxConfig(),  # in a configuration inside its own
    "mixtral": transformers.MixtralConfig(),
    "deepseek": transformers.DeepseekV3Config(),
    "ernie": transformers.Ernie4_5_MoeConfig(),
    "jetmoe": transformers.JetMoeConfig(),
    "a dict inside": type("Config", (), {})(),
}
ROUTING["a dict inside"].text_config = {"ffn": {"n_routed_experts": [2, 4]}}


@pytest.mark.parametrize("config", ROUTING.values(), ids=ROUTING)
def test_experts_are_recognised_wherever_the_configuration_tells_of_them(config):
    assert routes(config)
    assert not routes(transformers.LlamaConfig())
    assert not routes(transformers.BertConfig())
    assert not routes(None)


def test_a_module_with_experts_takes_one_record_at_a_time():
    class Inner(nn.Linear):
        config = ROUTING["dbrx"]

    assert ModuleModel(nn.Sequential(Inner(5, 3)), entropy, physical_batch_size=8).physical_batch_size == 1
    assert ModuleModel(nn.Sequential(Inner(5, 3)), entropy).couples_records == COUPLED


def test_a_capacity_inside_a_configuration_is_found():
    config = type("Config", (), {})()
    config.text_config = {"expert_capacity": 4}
    assert limited_capacity(config) == "expert_capacity"
    layer = nn.Linear(1, 1)
    layer.config = config
    with pytest.raises(Refusal, match="drop tokens"):
        refuse_coupling(layer)
