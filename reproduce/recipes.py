"""What each size of the table runs: frozen recipes, chosen by ``study.py`` (laptop) or taken from the paper (paper)."""

from dataclasses import dataclass, replace

from dpzo import Refusal


@dataclass(frozen=True)
class Recipe:
    """One size of the experiment for one model.

    Attributes:
        model: a packaged model, a folder or a hub id.
        prompt: the name of the causal prompt; None for the default (masked models have one prompt).
        trainable: patterns of the names of what is trained.
        k: training examples for each class, None for all; ``at_most`` bounds the test set.
        examples_seed: which examples are the k; None: each run's seed chooses its own, as in the paper.
        steps, batch_size, step_size, zo_eps: T, expected batch size, alpha, lambda.
        clips: the thresholds C to try; with several, the one that is best on the validation set is reported.
        rescaled: train the gain of the last norm in coordinates scaled by its activations on public text.
        average: report the mean of the last half of the iterates instead of the last one.
    """

    model: str
    prompt: str | None
    trainable: tuple[str, ...]
    k: int | None
    examples_seed: int | None
    at_most: int
    steps: int
    batch_size: int
    step_size: float
    zo_eps: float
    clips: tuple[float, ...]
    rescaled: bool
    average: bool
    tasks: tuple[str, ...]
    seeds: tuple[int, ...] = (42, 13, 21)
    epsilons: tuple[float, ...] = (6.0, 2.0)
    delta: float = 1e-5


# 576 coordinates: the gain of the last RMS norm. All below it is frozen, so what enters that norm is computed once for
# each text, and a step costs milliseconds. Chosen by study.py on the validation set.
SMOLLM2 = Recipe(
    model="smollm2-135m",
    prompt="sentiment",
    trainable=("model.norm.weight",),
    k=2000,
    examples_seed=42,
    at_most=1000,
    steps=3000,
    batch_size=1024,
    step_size=2.0,
    zo_eps=1e-2,
    clips=(1.0,),
    rescaled=True,
    average=True,
    tasks=("mr",),
)

# The head's transform of BERT-tiny and the last layer's norm: quick runs on a small model; the step size is a guess.
BERT_TINY = replace(
    SMOLLM2,
    model="bert-tiny",
    prompt=None,
    rescaled=False,
    trainable=("bert.encoder.layer.1.output.LayerNorm.*", "cls.predictions.transform.*"),
    steps=3000,
    step_size=0.03,
)

# Any other model: all of it is trained, with the paper's step size and smoothing, on fewer examples and steps.
OTHER = replace(
    SMOLLM2,
    trainable=("*",),
    k=512,
    examples_seed=None,
    steps=1000,
    batch_size=64,
    step_size=1e-6,
    zo_eps=1e-3,
    clips=(200.0,),
    rescaled=False,
    average=False,
)

# Source: Zhang et al. 2024, Table 8 and section 5.2. Which clip won for which task and epsilon is nowhere printed.
PAPER = Recipe(
    model="FacebookAI/roberta-large",
    prompt=None,
    trainable=("*",),
    k=512,
    examples_seed=None,
    at_most=1000,
    steps=10_000,
    batch_size=64,
    step_size=1e-6,
    zo_eps=1e-3,
    clips=(50.0, 100.0, 150.0, 200.0, 250.0, 300.0, 400.0),
    rescaled=False,
    average=False,
    tasks=("sst2", "sst5", "snli", "mnli", "rte", "trec"),
)


def recipe(size: str, model: str | None) -> Recipe:
    """The recipe of a size, for the model that the user names or for the size's own."""
    if size == "paper":
        return replace(PAPER, model=model or PAPER.model)
    if size == "tiny":
        return replace(
            recipe("laptop", model or BERT_TINY.model), k=150, at_most=200, steps=40, batch_size=64, seeds=(42,)
        )
    if size == "laptop":
        known = {r.model: r for r in (SMOLLM2, BERT_TINY)}
        return known.get(model or SMOLLM2.model) or replace(OTHER, model=str(model))
    raise Refusal("a size out of laptop, paper, tiny", repr(size), "laptop is the default.")
