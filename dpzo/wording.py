"""What a privacy statement says in words: one sentence for each part of a plan, and none for what is not there.

What somebody else wrote (an author, a model) is shown as it stands, by ``one_line``, and never in the first line.
"""

import math
from typing import TYPE_CHECKING, Any

from dpzo.accounting import Relation
from dpzo.mechanisms import GRID, GaussianVectorMechanism, PlainSum
from dpzo.noise import total_variation
from dpzo.plan import Plan
from dpzo.printing import one_line, rounded_up

if TYPE_CHECKING:
    from dpzo.report import Statement

NO_MODEL = "This statement was made without the model."

_CHANGES = {
    Relation.ADD_REMOVE: "adding or removing one {}",
    Relation.REPLACE_ONE: "replacing one {} by another",
    Relation.ZERO_OUT: "replacing one {} by a blank that contributes nothing",
}
_SAMPLERS = {
    "FullBatch": "full batch: every {unit} at every step",
    "PoissonSampler": "Poisson: each {unit} joins each batch on its own with probability {sample_rate:.6g}",
    "TruncatedPoisson": "truncated Poisson: each {unit} is drawn on its own with probability {sample_rate:.6g}, and of "
    "more than {cap} a uniformly random {cap} are kept",
    "FixedSize": "fixed size: a uniformly random {batch_size} of the {unit}s at each step",
    "ShuffledEpochs": "shuffled epochs: each {unit} once an epoch, in batches of {batch_size}; no amplification",
    "BallsAndBins": "balls and bins: each {unit} joins one of the {bins} steps of each epoch, uniformly and on its own",
}
_MECHANISMS = {
    "GaussianMechanism": "{derivatives} of each {unit} clipped to length C = {C:g}; Gaussian noise of standard "
    "deviation {scale:.6g} on {sums}",
    "EachGaussianMechanism": "{derivatives} of each {unit} clipped each to C = {C:g}, so together to C sqrt({K}), "
    "which is what is accounted; Gaussian noise of standard deviation {scale:.6g} on {sums}",
    "LaplaceMechanism": "{derivatives} of each {unit} clipped to length C = {C:g}; Laplace noise of scale {scale:.6g} "
    "on {sums}",
    "GaussianVectorMechanism": "the estimated gradient of each {unit} clipped to length C = {C:g}; Gaussian noise of "
    "standard deviation {scale:.6g} on each coordinate of the sum",
    "PlainSum": "{sums} of {derivatives}, with no clip and no noise",
}
_ACCOUNTANTS = {
    "closed-form": "closed form of Gaussian DP, exact",
    "pld": "privacy loss distributions (PLD), an upper bound",
    "rdp": "Renyi DP (RDP), an upper bound",
    "pure": "sum of pure epsilons, an upper bound at every delta",
}


def words_of(made: "Statement") -> dict[str, Any]:
    """Return what ``made`` says in words, by key, and how far a draw of its noise is from the ideal."""
    plan, mechanism, unit = made.plan, made.plan.mechanism, made.plan.unit
    one = unit if unit == "record" else f"{unit} with all that is theirs"
    sampler = plan.describe()["sampler"]
    losses = "its own, whoever else is in the batch: the model promises it"
    if said := [text for text in (made.couples_records, made.untried) if text is not None]:
        losses = "not promised to be its own, and what its batch does to it is not in the sensitivity. " + " ".join(
            said
        )
    transcript = f"the transcript: the public seed of the directions and {_count('number', plan)} for each step"
    if isinstance(mechanism, GaussianVectorMechanism):
        transcript = "every iterate (the weights after each step) and the public seed of the directions"
    return {
        "relation": str(plan.relation),
        "unit": unit,
        "neighbours": f"two data sets that differ by {_CHANGES[plan.relation].format(one)}",
        "sampler": _SAMPLERS[sampler["kind"]].format(unit=unit, **sampler),
        "mechanism": _mechanism(plan),
        "accounting": _ACCOUNTANTS[made.accountant],
        "noise": _noise(made),
        "draws": made.charged * mechanism.directions,
        "total_variation": draw_distance(plan),
        "losses": losses,
        "guess": f"of two neighbours, at even odds, nobody tells which it was more often than "
        f"{rounded_up(100 * (1 - made.doubt))} times in 100",
        "covered": [
            transcript,
            "what follows from it and the starting weights: the trained weights, means of iterates, replays",
            "the plan and this statement",
        ],
        "withheld": [
            "who was in a batch, and how many: sums are divided by a public number",
            "losses and derivatives of records and batches, and all else that was measured on the private data",
            "the noise before it was added",
            "the ledger's files: with its key, its hash of the data would confirm a right guess of all of them",
        ],
    }


def markdown(made: "Statement") -> str:
    """The statement as Markdown, without a heading; its first line is the verdict."""
    words, plan, reasons = words_of(made), made.plan, made.not_private
    facts = {
        "guarantee": "none" if reasons else f"for any {words['neighbours']}",
        "a guess": "nothing limits it" if reasons else words["guess"],
        "relation": str(plan.relation),
        "unit": f"one {plan.unit}",
        "n": f"{plan.n:,} {plan.unit}s: a public number, which is not hidden",
        "algorithm": plan.algorithm,
        "sampler, as run": words["sampler"],
        "sampler, as analysed": "the same: one object makes the batches and tells the accountant",
        "mechanism": words["mechanism"],
        "noise": words["noise"],
        "stages": stages_of(plan),
        "steps": f"{made.charged:,} charged of {plan.steps:,} planned; {made.released:,} released",
        "accountant": f"{words['accounting']}; dp-accounting {made.dp_accounting}, dpzo {made.dpzo}",
        "a record's loss": words["losses"],
        "cost of tuning": made.tuning,
        "pretraining": made.pretraining,
    }
    if made.not_accounted and not reasons:
        facts["guarantee"] = f"if each record's loss is its own, {facts['guarantee']}; else none"
    parts = [
        _verdict(made) + ".",
        "| | |\n| --- | --- |\n" + "\n".join(f"| {k} | {one_line(v)} |" for k, v in facts.items()),
    ]
    if not made.secret and math.isfinite(made.epsilon_of_plan):
        parts.append(f"With secret streams the whole plan would cost epsilon = {rounded_up(made.epsilon_of_plan)}.")
    elif not reasons and made.charged < plan.steps:
        whole = f"epsilon = {rounded_up(made.epsilon_of_plan)}, the whole plan's"
        parts.append(f"If the run was stopped because of what it had released, it has {whole}.")
    for title, items in (
        ("Released, and covered" if made.private else "Released", words["covered"]),
        ("Released, and not covered", made.uncovered),
        ("Not released, and not covered if it ever is", words["withheld"]),
    ):
        parts += ["\n".join([f"{title}:", "", *(f"- {one_line(item)}" for item in items)])] if items else []
    return "\n\n".join(parts) + "\n"


def _verdict(made: "Statement") -> str:
    numbers = f"epsilon = {rounded_up(made.epsilon)}, delta = {rounded_up(made.delta)}"
    if made.not_private:
        verdict = f"**NOT PRIVATE**: {'; '.join(made.not_private)}"
    elif made.not_accounted:
        verdict = (
            "**NOT ACCOUNTED**: a record's loss may depend on who else is in its batch, and by how much was not "
            f"tried (below); if it did not, {numbers} would hold"
        )
    else:
        verdict = f"**Differentially private**: {numbers}"
        if made.couples_records == NO_MODEL:
            verdict += "; made without the model, so on the condition that each record's loss is its own"
        elif made.couples_records is not None:
            verdict += "; how a batch's shape rounds a record's loss is not accounted (below)"
    return verdict + ("; what else was released is not covered (below)" if made.uncovered else "")


def draw_distance(plan: Plan) -> float | None:
    """How far one draw's law is from the ideal noise's, in total variation; None where there is no noise."""
    if isinstance(plan.mechanism, PlainSum):
        return None
    multipliers = {plan.mechanism.noise_multiplier * stage.noise_scale for stage in plan.stages}
    return max(total_variation(multiplier * GRID) for multiplier in multipliers)


def _mechanism(plan: Plan) -> str:
    mechanism, K = plan.mechanism, plan.mechanism.directions
    C, scale = math.nan, math.nan
    if not isinstance(mechanism, PlainSum):
        C, scale = mechanism.clip_threshold, mechanism.noise_multiplier * mechanism.clip_threshold
    derivatives = "the derivative" if K == 1 else f"the {K} derivatives"
    sums = "the sum" if K == 1 else f"each of the {K} sums"
    text = _MECHANISMS[type(mechanism).__name__]
    told = text.format(C=C, K=K, scale=scale, derivatives=derivatives, sums=sums, unit=plan.unit)
    own = [f"{n}: C = {s.clip_threshold:g}" for n, s in enumerate(plan.stages, 1) if s.clip_threshold is not None]
    if own:
        told += f"; with a C of their own, and noise in proportion to it, stages {', '.join(own)}"
    if any(stage.noise_scale != 1 for stage in plan.stages):
        told += f"; times, stage by stage, {', '.join(f'{stage.noise_scale:.6g}' for stage in plan.stages)}"
    return told


def stages_of(plan: Plan) -> str:
    """What the stages are, and what moves in them."""
    each = [
        f"{stage.steps:,} steps of size {stage.step_size:.4g} at radius {stage.zo_eps:.4g}"
        + (f", pulled to their start by {stage.proximal:g}" if stage.proximal else "")
        + (f", on {stage.keep:.4g} of the coordinates" if stage.keep < 1 else "")
        + (", ending at their mean" if stage.average else "")
        for stage in plan.stages
    ]
    if plan.pruning is not None:
        p = plan.pruning
        which, where = "largest" if p.largest else "smallest", "of all" if p.scope == "global" else "of each tensor"
        each.append(f"what moves has the {which} {p.score} scores {where}, which see no data ({p.strategy})")
    return "; then ".join(each)


def _noise(made: "Statement") -> str:
    if isinstance(made.plan.mechanism, PlainSum):
        return "none"
    source = "from the secret stream" if made.secret else "from a seed, not secret"
    where = ""
    if isinstance(made.plan.mechanism, GaussianVectorMechanism):
        source += "; across the direction of a step, where no record moves the sum, in double precision"
        where = " along it"
    return (
        f"{source}; exact{where} on a grid of C / 2**24 but for a total variation below "
        f"{rounded_up(draw_distance(made.plan) or 0.0)} a draw, which adds {rounded_up(made.delta_of_noise or 0.0)} to "
        f"delta over {_count('draw', made.plan, made.charged)}: included"
    )


def _count(noun: str, plan: Plan, steps: int = 1) -> str:
    count = steps * plan.mechanism.directions
    return f"{count:,} {noun}" + ("s" if count != 1 else "")
