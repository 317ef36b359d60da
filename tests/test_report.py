import json
import math
import re
from dataclasses import fields, replace
from importlib.metadata import version
from itertools import islice
from typing import get_args

import dp_accounting as dpa
import pytest
import torch
from dp_accounting.pld import PLDAccountant
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

import dpzo
from dpzo import Ledger, Refusal, Relation, Stage, Streams, dp_aggzo, dpgd_zeroth, dpzero, ledger, mezo, run, wording
from dpzo.accounting import ACCOUNTANTS
from dpzo.mechanisms import GaussianMechanism, LaplaceMechanism, Mechanism
from dpzo.models.quadratic import Quadratic
from dpzo.report import Statement, of_account, statement, write
from dpzo.sampling import SAMPLERS, BallsAndBins, FixedSize, ShuffledEpochs, TruncatedPoisson

COMMON = {"n": 20, "steps": 6, "step_size": 0.1, "zo_eps": 0.1}
NOISE = {"clip_threshold": 0.5, "noise_multiplier": 2.0, "relation": Relation.ADD_REMOVE}
DELTA = 1e-3


def laplace(**more):
    plan = dpzero(**COMMON, **NOISE, **more)
    return replace(plan, mechanism=LaplaceMechanism(0.5, 2.0))


PLANS = {
    "dpzero": dpzero(**COMMON, **NOISE),
    "poisson": dpzero(**COMMON, **NOISE, batch_size=5),
    "aggzo": dp_aggzo(**COMMON, **NOISE, directions=3),
    "each": dp_aggzo(**COMMON, **NOISE, directions=3, clip="each"),
    "laplace": laplace(),
    "dpgd-0th": dpgd_zeroth(**COMMON, **NOISE),
    "mezo": mezo(**COMMON),
}
EVERY = pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)


def gaussian_epsilon(mu, delta):
    """The epsilon of mu-Gaussian DP, from its definition as a trade-off."""

    def excess(epsilon):
        hit, miss = stats.norm.logcdf(mu / 2 - epsilon / mu), stats.norm.logcdf(-mu / 2 - epsilon / mu)
        return math.exp(hit) - math.exp(epsilon + miss) - delta

    return optimize.brentq(excess, 0.0, 1e5, xtol=1e-12)


@st.composite
def plans(draw):
    algorithm = draw(st.sampled_from([dpzero, dp_aggzo, dpgd_zeroth]))
    n = draw(st.integers(1, 60))
    more = {"directions": draw(st.integers(1, 5))} if algorithm is dp_aggzo else {}
    return algorithm(
        n=n,
        steps=draw(st.integers(1, 50)),
        step_size=draw(st.floats(1e-6, 10)),
        zo_eps=draw(st.floats(1e-6, 1)),
        clip_threshold=draw(st.floats(1e-3, 1e3)),
        noise_multiplier=draw(st.floats(0.8, 100)),
        relation=draw(st.sampled_from(Relation)),
        **more,
    )


@given(plans(), st.data())
def test_a_full_batch_states_the_trade_off_of_its_gaussians(plan, data):
    """Kills: K counted in epsilon, the plan's steps for the charged ones, another relation's sensitivity."""
    steps = data.draw(st.integers(1, plan.steps))
    delta = data.draw(st.floats(1e-9, 0.9 / plan.n))
    made = statement(plan, delta, private=True, steps=steps)
    sensitivity = 2 if plan.relation is Relation.REPLACE_ONE else 1
    mu = sensitivity * math.sqrt(steps) / plan.mechanism.noise_multiplier
    expected = gaussian_epsilon(mu, delta) if stats.norm.cdf(mu / 2) - stats.norm.cdf(-mu / 2) > delta else 0.0
    assert made.epsilon == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert made.accountant == "closed-form"
    assert (made.charged, made.released, made.plan) == (steps, steps, plan)


@pytest.mark.parametrize(("batch", "steps"), [(5, 6), (2, 3)])
@pytest.mark.parametrize("kind", [LaplaceMechanism, GaussianMechanism])
def test_a_poisson_plan_states_what_dp_accounting_says_of_poisson_sampling(kind, batch, steps):
    """Kills: the full batch accounted, another rate, another inner event."""
    plan = replace(dpzero(**COMMON, **NOISE, batch_size=batch), mechanism=kind(0.5, 2.0))
    inner = {LaplaceMechanism: dpa.LaplaceDpEvent, GaussianMechanism: dpa.GaussianDpEvent}[kind](2.0)
    accountant = PLDAccountant(dpa.NeighboringRelation.ADD_OR_REMOVE_ONE)
    accountant.compose(dpa.PoissonSampledDpEvent(batch / 20, inner), steps)
    made = statement(plan, DELTA, private=True, steps=steps)
    assert made.epsilon == pytest.approx(accountant.get_epsilon(DELTA), rel=1e-3)
    assert made.accountant == "pld"
    assert f"probability {batch / 20:.6g}" in made.markdown()


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_one_laplace_step_states_its_closed_form(scale):
    """One release of scale b costs 1/b + 2 ln(1 - delta), or nothing below zero."""
    plan = replace(laplace(), mechanism=LaplaceMechanism(0.5, scale))
    expected = max(0.0, 1 / scale + 2 * math.log(1 - DELTA))
    made = statement(plan, DELTA, private=True, steps=1)
    assert expected <= made.epsilon <= expected + 1e-3


def test_every_part_of_a_plan_has_words():
    """A sampler, mechanism, accountant or relation that is new must say what it is before it can be stated."""
    assert set(wording._SAMPLERS) == {kind.__name__ for kind in SAMPLERS}
    assert set(wording._MECHANISMS) == {kind.__name__ for kind in get_args(Mechanism)}
    assert set(wording._ACCOUNTANTS) == set(ACCOUNTANTS)
    assert set(wording._CHANGES) == set(Relation)


@pytest.mark.parametrize(
    ("sampler", "words"),
    [
        (TruncatedPoisson(0.25, cap=9), "drawn on its own with probability 0.25, and of more than 9"),
        (FixedSize(5), "a uniformly random 5 of the records"),
        (ShuffledEpochs(5), "each record once an epoch, in batches of 5; no amplification"),
        (BallsAndBins(4), "joins one of the 4 steps of each epoch"),
    ],
)
def test_a_sampler_is_told_as_it_is(sampler, words):
    plan = replace(PLANS["dpzero"], sampler=sampler, relation=Relation.ZERO_OUT)
    made = statement(plan, DELTA, private=True)
    assert words in made.markdown()
    assert made.epsilon == plan.epsilon(DELTA)
    assert Statement.from_json(made.json()) == made


def test_an_accountant_that_is_asked_for_is_the_one_that_is_stated():
    made = statement(laplace(), DELTA, private=True, accountant="pure")
    assert (made.epsilon, made.accountant) == (pytest.approx(6 / 2.0), "pure")
    assert "sum of pure epsilons" in made.markdown()


@EVERY
@pytest.mark.parametrize("private", [True, False])
def test_every_statement_names_what_it_must(plan, private):
    made = statement(plan, DELTA, private=private, steps=4, released=3)
    text, told = made.markdown(), json.loads(made.json())
    first = text.splitlines()[0]
    noisy = plan.algorithm != "mezo"
    assert ("NOT PRIVATE" in first) == (not private or not noisy) == (not told["private"])
    assert ("epsilon = " in first and "delta = " in first) == told["private"]
    for part in (
        "add-remove" if noisy else str(plan.relation),
        "one record",
        "20 records",
        f"| {plan.algorithm} |",
        "Poisson: each record joins" if "Poisson" in type(plan.sampler).__name__ else "full batch: every record",
        "the same: one object makes the batches",
        "4 charged of 6 planned; 3 released",
        f"dp-accounting {version('dp-accounting')}, dpzo {dpzo.__version__}",
        "| cost of tuning | not accounted |",
        "| pretraining | not covered",
        "who was in a batch, and how many",
        "losses and derivatives",
        "the noise before it was added",
        "the ledger's file",
        "the trained weights, means of iterates",
    ):
        assert part in text
    if noisy:
        assert "C = 0.5;" in text or "C = 0.5, so together to C sqrt(3)" in text
        assert "deviation 1 on" in text or "Laplace noise of scale 1 on" in text
    assert ("every iterate" in text) == (plan.algorithm == "dpgd-0th") == ("the transcript" not in text)
    assert ("3 numbers for each step" in text) == (plan.mechanism.directions == 3)
    assert {"epsilon", "delta", "relation", "unit", "sampler", "mechanism", "accountant", "plan"} <= set(told)
    assert told["plan"] == plan.describe()


@EVERY
def test_a_seeded_run_is_not_private_and_says_what_secret_streams_would_cost(plan):
    made = statement(plan, DELTA, private=False)
    assert made.epsilon == math.inf
    assert json.loads(made.json())["epsilon"] is None
    assert "from a seed" in made.markdown().splitlines()[0]
    assert "| guarantee | none |" in made.markdown()
    assert ("secret streams the whole plan would cost" in made.markdown()) == (plan.algorithm != "mezo")
    assert "**Differentially private**" not in made.markdown()
    assert "and covered" not in made.markdown()


def test_a_plan_without_noise_is_not_private_whatever_its_streams():
    made = statement(PLANS["mezo"], DELTA, private=True)
    assert made.not_private == ("the plan has no noise",)
    assert made.epsilon == made.epsilon_of_plan == math.inf
    assert "| noise | none |" in made.markdown()


def with_noise(multiplier, name="dpzero", **more):
    plan = PLANS[name]
    return replace(plan, mechanism=replace(plan.mechanism, noise_multiplier=multiplier), **more)


@pytest.mark.parametrize(
    ("name", "multiplier"), [("dpzero", 1e-9), ("dpzero", 0.05), ("poisson", 0.05), ("dpgd-0th", 1e-9), ("each", 1e-3)]
)
def test_an_epsilon_that_promises_nothing_is_not_called_private(name, multiplier):
    """Kills: "Differentially private: epsilon = 1.5e+19, delta = 1"."""
    made = statement(with_noise(multiplier, name), DELTA, private=True, model=Promises())
    assert made.markdown().startswith("**NOT PRIVATE**: ")
    assert not json.loads(made.json())["private"]
    assert "| guarantee | none |" in made.markdown()
    assert Statement.from_json(made.json()) == made


def test_a_promise_is_one_as_long_as_it_leaves_doubt():
    """At epsilon = ln(1e9 - 1) = 20.72 whoever guesses may be wrong once in a billion times. Kills: another limit."""
    limit = math.log(1e9 * (1 - DELTA) - 1)
    at = optimize.brentq(lambda multiplier: gaussian_epsilon(math.sqrt(6) / multiplier, DELTA) - limit, 0.2, 2.0)
    above, below = (
        statement(with_noise(at * factor), DELTA, private=True, model=Promises()) for factor in (0.999, 1.001)
    )
    assert 20.6 < below.epsilon < limit < above.epsilon < 20.8
    assert below.markdown().startswith("**Differentially private**: epsilon = 20.")
    assert above.markdown().startswith("**NOT PRIVATE**: epsilon = 20.")
    assert "than once in 1,000,000,000" in above.markdown().splitlines()[0]


def test_a_delta_of_one_record_in_n_is_not_called_private():
    """The distance of the noise alone may lift a delta above 1/n, where publishing a record would be allowed."""
    made = replace(statement(PLANS["dpzero"], DELTA, private=True, model=Promises()), delta=0.05)
    assert made.markdown().startswith("**NOT PRIVATE**: ")
    assert "one record in 20" in made.markdown().splitlines()[0]
    assert replace(made, delta=0.0499).private


@given(st.floats(0.4, 30), st.integers(1, 6), st.sampled_from(["add-remove", "replace-one"]))
def test_the_limit_on_a_guess_is_that_of_the_best_test_of_two_gaussians(multiplier, steps, relation):
    """The best guess between N(0, 1) and N(mu, 1) is right with probability Phi(mu / 2), which the limit bounds."""
    plan = with_noise(multiplier, relation=Relation(relation))
    made = statement(plan, DELTA, private=True, steps=steps)
    mu = (2 if relation == "replace-one" else 1) * math.sqrt(steps) / multiplier
    assert stats.norm.sf(mu / 2) >= made.doubt
    assert made.doubt == pytest.approx((1 - made.delta) / (1 + math.exp(made.epsilon)), rel=1e-9)
    if made.private:
        told = float(made.markdown().split("more often than ")[1].split(" times")[0])
        assert told >= 100 * (1 - made.doubt) - 1e-9


@EVERY
@pytest.mark.parametrize("private", [True, False])
@pytest.mark.parametrize("steps", [0, 2, 6])
def test_json_comes_back_as_the_same_statement(plan, private, steps):
    made = statement(plan, DELTA, private=private, steps=steps, uncovered=["accuracy on the private data"])
    again = Statement.from_json(made.json())
    assert again == made
    assert again.json() == made.json()
    assert again.markdown() == made.markdown()


@given(st.text(max_size=40), st.text(max_size=40), st.lists(st.text(max_size=20), max_size=3))
def test_the_authors_words_cannot_change_what_the_statement_says(tuning, pretraining, uncovered):
    """No word of the author's makes a line, a table cell, a comment or a heading of its own."""
    words = {"tuning": tuning, "pretraining": pretraining, "uncovered": uncovered}
    made = statement(PLANS["dpzero"], DELTA, private=True, **words)
    plain = statement(PLANS["dpzero"], DELTA, private=True, uncovered=["x"] * len(uncovered))
    assert Statement.from_json(made.json()) == made
    assert len(made.markdown().splitlines()) == len(plain.markdown().splitlines())
    assert made.markdown().splitlines()[0] == plain.markdown().splitlines()[0]
    assert "<" not in made.markdown()
    cells = [line.replace("\\|", "").count("|") for line in made.markdown().splitlines() if line.startswith("| ")]
    assert set(cells) == {3}


def test_what_was_released_besides_is_named_in_the_first_line():
    made = statement(PLANS["dpzero"], DELTA, private=True, uncovered=["the loss of each step"])
    assert "not covered" in made.markdown().splitlines()[0]
    assert "\n- the loss of each step\n" in made.markdown()
    assert "Released, and not covered:" not in statement(PLANS["dpzero"], DELTA, private=True).markdown()


def test_a_run_that_was_cut_short_tells_the_price_of_the_whole_plan_too():
    """Stopping because of a release costs what all steps cost: a plan's epsilon covers any rule to stop."""
    part, whole = (statement(PLANS["dpzero"], DELTA, private=True, steps=steps) for steps in (3, 6))
    assert part.epsilon < part.epsilon_of_plan == whole.epsilon
    assert "stopped because of what it had released" in part.markdown()
    assert "stopped because of what it had released" not in whole.markdown()


@pytest.mark.parametrize(
    ("name", "draws"), [("dpzero", 6), ("aggzo", 18), ("each", 18), ("laplace", 6), ("dpgd-0th", 6), ("mezo", None)]
)
def test_delta_includes_the_distance_of_the_drawn_noise_from_the_ideal(name, draws):
    """Scale 2 * 2**24 on the grid: |k| <= 90 scale + 1 takes (90 scale + 2) / 2**128 a draw, times 1 + e^epsilon."""
    made = statement(PLANS[name], DELTA, private=True)
    if draws is None:
        assert made.delta_of_noise is None
        assert made.delta == DELTA
        return
    assert ("exact along it on a grid" in made.markdown()) == (name == "dpgd-0th")
    one = (90 * 2 * 2**24 + 2) / 2**128
    assert made.delta_of_noise == pytest.approx(draws * one * (1 + math.exp(made.epsilon)), rel=1e-9, abs=0)
    assert made.delta == DELTA + made.delta_of_noise
    assert f"over {draws} draws" in made.markdown()
    assert json.loads(made.json())["draws"] == draws
    assert json.loads(made.json())["total_variation"] == one


def test_so_little_noise_that_its_distance_counts_is_in_delta():
    """At epsilon around 60 the factor e^epsilon is no longer small."""
    plan = replace(PLANS["dpzero"], mechanism=replace(PLANS["dpzero"].mechanism, noise_multiplier=0.2))
    made = statement(plan, DELTA, private=True)
    assert made.epsilon > 60
    assert made.delta > DELTA * 1.001
    assert "delta = 0.001 " not in made.markdown().splitlines()[0]


class Promises:
    couples_records = None


class Says:
    couples_records = "The kernel may move a loss by 1e-6 with the batch."


class Tried(Says):
    untried = None


class NotTried(Promises):
    untried = "made-up records could not be evaluated"


KINDS = {"promises": Promises(), "says": Says(), "tried": Tried(), "untried": NotTried(), "silent": 3, "none": None}


def test_what_the_model_says_of_its_losses_is_in_the_statement():
    """Kills: an attention across records that is told as rounding, in the middle of a table."""
    told = {kind: statement(PLANS["dpzero"], DELTA, private=True, model=model) for kind, model in KINDS.items()}
    first = {kind: made.markdown().splitlines()[0] for kind, made in told.items()}
    assert re.fullmatch(r"\*\*Differentially private\*\*: epsilon = [\d.]+, delta = [\d.]+\.", first["promises"])
    assert first["says"].startswith("**NOT ACCOUNTED**: a record's loss may depend on who else is in its batch")
    assert first["silent"] == first["says"] == first["untried"]
    assert first["none"].startswith("**Differentially private**: ")
    assert "on the condition that each record's loss is its own" in first["none"]
    assert "rounds a record's loss is not accounted (below)" in first["tried"]
    text = {kind: made.markdown() for kind, made in told.items()}
    assert "the model promises it" in text["promises"]
    assert "not in the sensitivity. The kernel may move a loss by 1e-6 with the batch. No run" in text["says"]
    assert "by 1e-6 with the batch. |" in text["tried"]
    assert "made-up records could not be evaluated |" in text["untried"]
    assert "int does not say whether it is." in text["silent"]
    assert "made without the model" in text["none"]
    assert sum("the model promises it" in told for told in text.values()) == 1
    assert {kind: made.private for kind, made in told.items()} == {
        "promises": True, "says": False, "tried": True, "untried": False, "silent": False, "none": True,
    }  # fmt: skip
    assert sum("and covered:" in told for told in text.values()) == 3
    for made in told.values():
        assert Statement.from_json(made.json()) == made
        assert json.loads(made.json())["private"] == made.private


@pytest.mark.parametrize(
    ("relation", "words"),
    [
        (Relation.ADD_REMOVE, "adding or removing one user with all that is theirs"),
        (Relation.REPLACE_ONE, "replacing one user with all that is theirs by another"),
        (Relation.ZERO_OUT, "replacing one user with all that is theirs by a blank"),
    ],
)
def test_neighbours_are_told_in_words(relation, words):
    plan = replace(PLANS["dpzero"], relation=relation, unit="user")
    text = statement(plan, DELTA, private=True).markdown()
    assert f"two data sets that differ by {words}" in text
    assert f"| relation | {relation} |" in text
    assert "| unit | one user |" in text


@given(st.floats(0.5, 50), st.integers(1, 6))
def test_a_printed_epsilon_is_never_less_than_the_true_one(multiplier, steps):
    plan = replace(PLANS["dpzero"], mechanism=replace(PLANS["dpzero"].mechanism, noise_multiplier=multiplier))
    made = statement(plan, DELTA, private=True, steps=steps)
    printed = float(re.split("[ ,]", made.markdown().split("epsilon = ")[1])[0])
    assert made.epsilon <= printed <= 1.001 * made.epsilon + 1e-12


@pytest.mark.parametrize("streams", [Streams.secure(1), Streams.not_private(1, 2)], ids=["secure", "seeded"])
@pytest.mark.parametrize("name", ["dpzero", "aggzo", "dpgd-0th", "mezo"])
def test_a_ledgers_statement_is_the_plans_at_the_charged_steps(tmp_path, name, streams):
    plan, path = PLANS[name], tmp_path / "ledger"
    model, data = Quadratic(torch.ones(4), torch.zeros(4)), torch.linspace(-1, 1, 80).view(20, 4)
    with Ledger(path, data=ledger.fingerprint(data)) as book:
        list(islice(run(plan, model, data, streams, ledger=book), 4))
    account = ledger.read(path)
    made = of_account(account, DELTA, tuning="none was done")
    assert made == statement(plan, DELTA, private=streams.are_private, steps=4, tuning="none was done")
    assert made.epsilon == (math.inf if made.not_private else account.epsilon(DELTA))


def test_a_step_that_was_charged_and_not_released_is_paid_for(tmp_path):
    path = tmp_path / "ledger"
    model, data = Quadratic(torch.ones(4), torch.zeros(4)), torch.linspace(-1, 1, 80).view(20, 4)
    with Ledger(path, data="mine") as book:
        list(islice(run(PLANS["dpzero"], model, data, Streams.secure(1), ledger=book), 2))
        book.charge(2)
    made = of_account(ledger.read(path), DELTA)
    assert (made.charged, made.released) == (3, 2)
    assert made.epsilon == PLANS["dpzero"].epsilon(DELTA, steps=3)


def test_writing_puts_both_files_whole_and_overwrites(tmp_path):
    first, second = (statement(PLANS[name], DELTA, private=True) for name in ("dpzero", "aggzo"))
    for made in (first, second):
        markdown, told = write(made, tmp_path / "new" / "folder")
        assert markdown.read_bytes().decode() == made.markdown()
        assert Statement.from_json(told.read_text()) == made
        assert sorted(p.name for p in markdown.parent.iterdir()) == ["privacy.json", "privacy.md"]


def test_a_place_that_cannot_be_written_to_is_refused_and_left_clean(tmp_path):
    made = statement(PLANS["dpzero"], DELTA, private=True)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder" / "privacy.md").mkdir(parents=True)
    for folder in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "folder"):
        with pytest.raises(Refusal, match="can be written"):
            write(made, folder)
    assert (tmp_path / "file").read_text() == "mine"
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["privacy.md"]


BAD = {
    "delta of 1/n": {"delta": 0.05},
    "delta of zero": {"delta": 0.0},
    "no delta": {"delta": None},
    "streams for private": {"private": Streams.secure(1)},
    "too many steps": {"steps": 7},
    "negative steps": {"steps": -1},
    "a fractional step": {"steps": 2.5},
    "more released than charged": {"steps": 3, "released": 4},
    "negative released": {"released": -1},
    "a boolean count": {"released": True},
    "an unknown accountant": {"accountant": "guess"},
    "one text for a list": {"uncovered": "accuracy"},
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_bad_input_is_refused(bad):
    given = {"delta": DELTA, "private": True} | bad
    with pytest.raises(Refusal):
        statement(PLANS["poisson"], **given)


NOBODY_RUNS = {
    "another algorithm's mechanism": replace(PLANS["dpzero"], algorithm="dpgd-0th"),
    "noise under the name of none": replace(PLANS["dpzero"], algorithm="mezo"),
    "no noise under a private name": replace(PLANS["mezo"], algorithm="dpzero"),
    "several directions": replace(PLANS["aggzo"], algorithm="dp-zoso", mechanism=PLANS["each"].mechanism),
    "an unknown algorithm": replace(PLANS["dpzero"], algorithm="dp-adamw ![x](y)"),
    "a pull": replace(PLANS["dpzero"], stages=(Stage(6, 0.1, 0.1, proximal=0.5),)),
}


@pytest.mark.parametrize("plan", NOBODY_RUNS.values(), ids=NOBODY_RUNS)
def test_a_plan_that_nobody_runs_is_not_stated(plan):
    """Kills: a statement of what ``run`` refuses."""
    data, model = torch.zeros(20, 4), Quadratic(torch.ones(4), torch.zeros(4))
    with pytest.raises(Refusal) as by_run:
        run(plan, model, data, Streams.secure(1))
    with pytest.raises(Refusal) as by_statement:
        statement(plan, DELTA, private=True)
    assert str(by_run.value) == str(by_statement.value)


@pytest.mark.parametrize("missing", ["delta", "private"])
def test_what_decides_has_no_default(missing):
    given = {"delta": DELTA, "private": True}
    del given[missing]
    with pytest.raises(TypeError, match=missing):
        statement(PLANS["dpzero"], **given)


MADE = statement(PLANS["dpzero"], DELTA, private=True).json()


def changed(**parts):
    return json.dumps(json.loads(MADE) | parts)


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "null", "3", "{}"),
        *(changed(schema=1), changed(schema=3), changed(plan={}), changed(plan=3), changed(uncovered=None)),
        *(changed(relation="zero-out"), changed(unit="user"), changed(private=False), changed(secret=False)),
    ],
)
def test_what_is_no_statement_is_refused(text):
    with pytest.raises(Refusal):
        Statement.from_json(text)


SEEDED = json.loads(statement(PLANS["dpzero"], DELTA, private=False).json())
FORGED = {
    "epsilon of .01": {"epsilon": 0.01},
    "epsilon of -1": {"epsilon": -1},
    "epsilon of a thousandth less": {"epsilon": json.loads(MADE)["epsilon"] * 0.999},
    "epsilon of a thousandth more": {"epsilon": json.loads(MADE)["epsilon"] * 1.001},
    "no epsilon": {"epsilon": None},
    "epsilon as a text": {"epsilon": "0.01"},
    "the whole plan's epsilon": {"epsilon_of_plan": 0.01},
    "a smaller delta": {"delta": 1e-9},
    "a smaller delta in both places": {"delta": 1e-9, "delta_asked": 1e-9},
    "no delta of the noise": {"delta_of_noise": 0.0, "delta": DELTA},
    "a large delta of the noise": {"delta_of_noise": 0.01, "delta": DELTA + 0.01},
    "more released than charged": {"released": 10**9},
    "negative released": {"released": -1},
    "released as True": {"released": True},
    "charged none": {"charged": 0, "released": 0},
    "charged beyond the plan": {"charged": 7},
    "another accountant": {"accountant": "rdp"},
    "an accountant that is none": {"accountant": "guess"},
    "reasons": {"not_private": ["it was a joke"]},
    "not accounted": {"not_accounted": True},
    "a promise of the model": {"couples_records": None},
    "another promise": {"couples_records": "none"},
    "a trial": {"untried": "nobody tried"},
    "words of the noise": {"noise": "perfect"},
    "words of the guess": {"guess": "nobody guesses"},
    "words of what is covered": {"covered": ["all"]},
    "a further key": {"certified": True},
    "a number for the author's words": {"tuning": 3},
    "numbers for a list": {"uncovered": [1]},
    "a text for a list": {"uncovered": "ab"},
    "a number for a version": {"dpzo": 1},
    "streams that were seeds": {key: SEEDED[key] for key in ("secret", "epsilon")},
    "a nan": {"epsilon": math.nan},
    "an infinite delta": {"delta": math.inf},
}


@pytest.mark.parametrize("parts", FORGED.values(), ids=FORGED)
def test_a_part_that_does_not_follow_from_the_plan_is_refused(parts):
    """Kills: a statement that is read as it was edited."""
    with pytest.raises(Refusal):
        Statement.from_json(changed(**parts))


@pytest.mark.parametrize(
    "parts",
    [
        {"epsilon": 0.01},
        {"epsilon": -1.0},
        {"epsilon": 0.9999 * Statement.from_json(MADE).epsilon},
        {"epsilon": 1.0001 * Statement.from_json(MADE).epsilon},
        {"epsilon_of_plan": 0.01},
        {"delta": 1e-9},
        {"delta_asked": 1e-9, "delta": 1e-9},
        {"delta_of_noise": 0.0, "delta": DELTA},
        {"released": 10**9},
        {"charged": 3, "released": 3},
        {"plan": PLANS["poisson"]},
        {"accountant": "rdp"},
    ],
    ids=str,
)
def test_a_forgery_whose_words_are_changed_too_is_refused(parts):
    forged = replace(Statement.from_json(MADE), **parts)
    with pytest.raises(Refusal):
        Statement.from_json(forged.json())


@pytest.mark.parametrize("name", ["epsilon", "private", "not_private", "secret"])
def test_a_seeded_run_edited_to_private_is_refused(name):
    with pytest.raises(Refusal):
        Statement.from_json(json.dumps(SEEDED | {name: json.loads(MADE)[name]}))
    with pytest.raises(Refusal):
        Statement.from_json(json.dumps(SEEDED | {key: json.loads(MADE)[key] for key in ("epsilon", name)}))


@pytest.mark.parametrize(
    "edit",
    [
        lambda plan: plan["mechanism"].update(noise_multiplier=4.0),
        lambda plan: plan["mechanism"].update(clip_threshold=1.0),  # epsilon stays, the words do not
        lambda plan: plan["stages"][0].update(steps=7),
        lambda plan: plan.update(relation="replace-one"),
        lambda plan: plan.update(algorithm="dpgd-0th"),
        lambda plan: plan.update(sampler={"kind": "PoissonSampler", "sample_rate": 0.5}),
    ],
)
def test_a_plan_that_was_edited_is_refused(edit):
    told = json.loads(MADE)
    edit(told["plan"])
    with pytest.raises(Refusal):
        Statement.from_json(json.dumps(told))


def test_the_last_bits_of_another_machine_are_no_forgery():
    told = json.loads(MADE)
    for key in ("epsilon", "epsilon_of_plan"):
        told[key] *= 1 + 1e-9
    assert Statement.from_json(json.dumps(told)).epsilon == told["epsilon"]


@pytest.mark.parametrize("field", [field.name for field in fields(Statement)])
def test_a_statement_that_lacks_a_field_is_refused(field):
    told = json.loads(MADE)
    del told[field]
    with pytest.raises(Refusal):
        Statement.from_json(json.dumps(told))


def test_the_keys_are_stable():
    """Others read them: a new key may come, but none may go or change its meaning without a new schema."""
    assert set(json.loads(MADE)) >= {
        *("schema", "private", "not_private", "epsilon", "delta", "epsilon_of_plan", "delta_of_noise"),
        *("relation", "unit", "neighbours", "plan", "secret", "charged", "released", "sampler", "mechanism", "noise"),
        *("draws", "total_variation", "accountant", "accounting", "dp_accounting", "dpzo", "losses"),
        *("couples_records", "untried", "not_accounted", "delta_asked", "guess"),
        *("covered", "withheld", "uncovered", "tuning", "pretraining"),
    }
    assert json.loads(MADE)["schema"] == 2


def test_a_pure_guarantee_has_the_noises_distance_alone_as_its_delta():
    made = statement(laplace(), 0.0, private=True, accountant="pure")
    assert made.epsilon == pytest.approx(6 / 2.0)
    assert 0 < made.delta == made.delta_of_noise < 1e-20
