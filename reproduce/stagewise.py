"""The runs of the two studies of the stagewise methods: one language model, one task, methods at equal privacy.

Every private run has the same n, sampling, number of steps, epsilon and delta, so that only the method differs. Each
method's step size is its own: the best of a grid on the validation set, at other seeds and one epsilon. That choice
is not accounted.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import dpzo
from dpzo import Plan, Pruning, Refusal, Relation, Stage, Streams
from dpzo.masks import Mask
from dpzo.models.load import Loaded, load
from dpzo.stages import doubling
from dpzo.tasks import Split, get_task
from reproduce.data import Data
from reproduce.engine import Bench
from reproduce.first_order import FirstOrder, dp_adamw, first_order_plan
from reproduce.prefix import Prefix
from reproduce.recipes import recipe
from reproduce.results import Results, peak_memory_mib

RELATION = Relation.ADD_REMOVE


@dataclass(frozen=True)
class Setting:
    """What all methods share.

    Attributes:
        trainable: patterns of the names of what is trained; pruning keeps a share of these.
        k: training examples for each class; ``at_most`` bounds the test and the validation set.
        steps, batch_size, zo_eps: T, expected batch size, lambda of the methods without a schedule of it.
        first_order_steps: DP-AdamW's own T.
        prefix: what is trained instead by a method that trains a prefix.
        tuned_at: the epsilon at which step sizes are chosen.
    """

    model: str
    prompt: str | None
    trainable: tuple[str, ...]
    k: int
    at_most: int
    steps: int
    first_order_steps: int
    batch_size: int
    zo_eps: float
    epsilons: tuple[float, ...]
    seeds: tuple[int, ...]
    prefix: Prefix
    delta: float = 1e-5
    tuned_at: float = 4.0


SETTINGS = {
    # The last block's second matrix: 884,736 coordinates behind the cut, so that a forward pass takes milliseconds.
    "laptop": Setting(
        model="smollm2-135m",
        prompt="sentiment",
        trainable=("model.layers.29.mlp.down_proj.weight",),
        k=512,
        at_most=1000,
        steps=480,
        first_order_steps=60,
        batch_size=64,
        zo_eps=1e-3,
        epsilons=(2.0, 4.0, 8.0),
        seeds=(42, 13, 21, 87, 100, 7),
        prefix=Prefix(last_only=True),  # a step then takes no pass through the other blocks
    ),
    # Source: the authors' code (Liu et al. 2024): T = 6,000, B = 64; lambda as in MeZO, for theirs (1e-6) rounds away.
    "paper": Setting(
        model="FacebookAI/roberta-large",
        prompt=None,
        trainable=("*",),
        k=512,
        at_most=1000,
        steps=6000,
        first_order_steps=1000,
        batch_size=64,
        zo_eps=1e-3,
        epsilons=(2.0, 4.0, 8.0),
        seeds=(42, 13, 21),
        prefix=Prefix(),
    ),
    "tiny": Setting(
        model="bert-tiny",
        prompt=None,
        trainable=("cls.predictions.transform.*",),
        k=60,
        at_most=100,
        steps=14,
        first_order_steps=5,
        batch_size=16,
        zo_eps=1e-2,
        epsilons=(4.0,),
        seeds=(42,),
        prefix=Prefix(positions=5, last_only=True),
    ),
}


@dataclass(frozen=True)
class Method:
    """One row: which algorithm, and its own choices. ``step_size`` None: none is needed.

    Attributes:
        stages: 1, or the authors' doubling schedule with that many (3: T/6, T/3, T/2).
        keep: the share that moves, one for all stages or one for each.
    """

    name: str
    algorithm: str
    step_size: float | None = None
    clip: float = 1.0
    stages: int = 1
    last_zo_eps: float | None = None
    proximal: float = 0.0
    average: bool = False
    keep: tuple[float, ...] = ()
    pruning: Pruning | None = None

    @property
    def private(self) -> bool:
        """Whether the method trains."""
        return self.algorithm != "zero-shot"

    @property
    def first_order(self) -> bool:
        """Whether the method takes gradients."""
        return self.algorithm in ("dp-adamw", "dp-adamw-prefix")

    @property
    def of_prefix(self) -> bool:
        """Whether the method trains a prefix, not weights."""
        return self.algorithm == "dp-adamw-prefix"


def plan_of(method: Method, setting: Setting, n: int, epsilon: float) -> Plan:
    """The plan of a zeroth-order run."""
    assert method.step_size is not None
    s = setting
    common: dict[str, Any] = {
        "n": n,
        "batch_size": s.batch_size,
        "clip_threshold": method.clip,
        "relation": RELATION,
        "target_epsilon": epsilon,
        "target_delta": s.delta,
        "direction": dpzo.GaussianDirection(),
    }
    if method.algorithm == "dpzero":
        return dpzo.dpzero(**common, steps=s.steps, step_size=method.step_size, zo_eps=s.zo_eps)
    keep = list(method.keep) or [1.0]
    if method.stages == 1:
        stages: tuple[Stage, ...] = (
            Stage(s.steps, method.step_size, s.zo_eps, proximal=method.proximal, keep=keep[0], average=method.average),
        )
    else:
        stages = doubling(
            first_steps=-(-s.steps // (2 * (2 ** (method.stages - 1) - 1))),
            steps=s.steps,
            step_size=method.step_size,
            zo_eps=s.zo_eps,
            stages=method.stages,
            last_zo_eps=method.last_zo_eps,
            keep=keep if len(keep) > 1 else keep[0],
            proximal=method.proximal,
            average=method.average,
        )
    if method.algorithm == "dp-zoso":
        return dpzo.dp_zoso(**common, stages=stages)
    assert method.pruning is not None
    pruning = _Remembering(**{field.name: getattr(method.pruning, field.name) for field in fields(Pruning)})
    return dpzo.dp_zopo(**common, stages=stages, pruning=pruning)


class _Remembering(Pruning):
    # Every run of a study begins with the same weights: their masks are made once.
    def mask(self, model: Any, keep: float, before: Mask | None = None) -> Mask:
        if before is not None:
            return super().mask(model, keep, before)
        of = (self, keep, model.params.count, *model.params)
        if of not in _MASKS:
            _MASKS[of] = super().mask(model, keep)
        return _MASKS[of]


_MASKS: dict[tuple[Any, ...], Mask] = {}


class Study:
    """A setting at work: runs methods, keeps what is finished, chooses step sizes."""

    def __init__(
        self, setting: Setting, task: str, results: Results, data_dir: Path | None, assets: Path | None, device: str
    ) -> None:
        self.setting, self.task, self.results = setting, get_task(task), results
        self._data = Data(self.task, data_dir, assets)
        self._sources = (assets, device)
        self._loaded: Loaded | None = None
        self._benches: dict[Prefix | None, Bench] = {}
        if setting.prompt not in self.task.causal:  # another task has prompts of its own
            self.setting = replace(setting, prompt=None)
        self.told = {
            k: v for k, v in asdict(self.setting).items() if k not in ("epsilons", "seeds", "tuned_at", "prefix")
        }

    @property
    def options(self) -> str:
        """What a command says of the task, before what it says of the rest."""
        told = "" if self.task.name == "mr" else f" --task {self.task.name}"
        return told + (" --data-dir FOLDER" if self._data.where == "folder" else "")

    @property
    def bench(self) -> Bench:
        """The model on its bench, loaded when the first run needs it."""
        return self.bench_of(None)

    def bench_of(self, prefix: Prefix | None) -> Bench:
        """The model on its bench, of which this prefix is trained, or the setting's weights."""
        s, (assets, device) = self.setting, self._sources
        if self._loaded is None:
            self._loaded = load(s.model, device=device, assets_dir=assets)
        if prefix not in self._benches:
            base = replace(
                recipe("laptop", None),
                model=s.model,
                prompt=s.prompt,
                trainable=s.trainable,
                k=s.k,
                at_most=s.at_most,
                batch_size=s.batch_size,
                rescaled=False,
            )
            self._benches[prefix] = Bench(self._loaded, self.task, base, self._data.read, device, prefix=prefix)
        return self._benches[prefix]

    def run(self, method: Method, epsilon: float | None, seed: int | None, split: Split) -> dict[str, Any]:
        """One run and its accuracy on ``split``, from the results if it is finished there."""
        cell = {
            "method": asdict(method) | {"name": ""},
            "epsilon": epsilon,
            "seed": seed,
            "split": split,
            "setting": self.told,
            "data": self._data.told,
        }
        prefix = self.setting.prefix if method.of_prefix else None
        if prefix is not None:
            cell["prefix"] = asdict(prefix)
        if (row := self.results.get(cell)) is None:
            bench = self.bench_of(prefix)
            try:
                outcome = self._run(bench, method, epsilon, seed, split)
            finally:
                bench.subject.params.restore(bench.start)
            self.results.add(cell, outcome)
            row = self.results.get(cell)
        assert row is not None
        return row

    def _run(
        self, bench: Bench, method: Method, epsilon: float | None, seed: int | None, split: Split
    ) -> dict[str, Any]:
        s = self.setting
        train, test = bench.records("train", seed), bench.records(split, seed)
        outcome: dict[str, Any] = {"n": len(train), "d": bench.model.params.count}
        if method.private:
            assert epsilon is not None
            assert seed is not None
            assert method.step_size is not None
            streams, began = Streams.secure(seed), time.perf_counter()
            if method.first_order:
                own = FirstOrder(s.first_order_steps, s.batch_size, method.step_size, method.clip)
                plan = first_order_plan(own, len(train), epsilon, s.delta)
                steps: Any = dp_adamw(plan, own, bench.model, train, streams)
            else:
                plan = plan_of(method, s, len(train), epsilon)
                steps = dpzo.run(plan, bench.model, train, streams)
            seconds_before = time.perf_counter() - began  # calibration and scores
            for _ in tqdm(steps, total=plan.steps, desc=method.name, unit="step", leave=False, dynamic_ncols=True):
                pass
            outcome |= {
                "epsilon": plan.epsilon(s.delta),
                "noise_multiplier": getattr(plan.mechanism, "noise_multiplier", None),
                "steps": plan.steps,
                "seconds_before": seconds_before,
                "seconds_per_step": (time.perf_counter() - began - seconds_before) / plan.steps,
            }
        outcome |= bench.measure(test, split)
        return outcome | {"peak_memory_mib": round(peak_memory_mib(bench.device))}

    def tuned(
        self, method: Method, step_sizes: Sequence[float], seeds: Sequence[int], say: Callable[[str], None] = print
    ) -> Method:
        """``method`` with the step size of the least validation loss at ``tuned_at``, in the mean over ``seeds``.

        While that lies at an end of the step sizes tried, one more beyond it is tried, up to ``_FURTHER`` of them.
        """
        losses: dict[float, float] = {}

        def tried(step_size: float) -> None:
            sized = replace(method, step_size=step_size)
            runs = [self.run(sized, self.setting.tuned_at, seed, "validation") for seed in seeds]
            loss = float(np.mean([run["validation_loss"] for run in runs]))
            losses[step_size] = loss if np.isfinite(loss) else np.inf
            say(f"{method.name}: step size {step_size:g}, validation loss {losses[step_size]:.4f}")

        for step_size in step_sizes:
            tried(step_size)
        for _ in range(_FURTHER):
            best = min(losses, key=lambda step_size: losses[step_size])
            if best not in (min(losses), max(losses)) or len(losses) == 1:
                break
            tried(float(f"{best * (10**0.5 if best == max(losses) else 10**-0.5):.2g}"))
        return replace(method, step_size=min(losses, key=lambda step_size: losses[step_size]))


_FURTHER = 3
FULL_GRID = (0.01, 0.03, 0.1)


def grid(method: Method) -> tuple[float, ...]:
    """Step sizes: a direction over a share r of d coordinates is sqrt(r) as long, so sizes go as r^(-1/2)."""
    share = float(np.mean(method.keep)) if method.keep else 1.0
    return tuple(float(f"{size / share**0.5:.2g}") for size in FULL_GRID)


def named(study: str, task: str) -> str:
    """The name of a study's files: each task has its own, MR's without its name."""
    return study if task == "mr" else f"{study}_{task}"


def setting_of(size: str) -> Setting:
    """The setting of a size.

    Raises:
        Refusal: no such size.
    """
    if size not in SETTINGS:
        raise Refusal(f"a size out of {', '.join(SETTINGS)}", repr(size), "laptop is the default.")
    return SETTINGS[size]
