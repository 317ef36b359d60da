"""Runs the cells of a table: each is one training run (or none, for zero-shot), and one line of results."""

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

import dpzo
from dpzo import Ledger, Plan, Refusal, Relation, Streams
from dpzo.accounting import check_delta, choose
from dpzo.averaging import TailAverage
from dpzo.fingerprint import fingerprint
from dpzo.models.encoding import Encoder, Records
from dpzo.models.load import Loaded
from dpzo.models.prompted import PromptedModel
from dpzo.models.rescaled import Rescaled
from dpzo.plan import sampler_of
from dpzo.printing import rounded_up
from dpzo.report import statement, write
from dpzo.tasks import Example, Split, Task, k_shot, subsample
from reproduce.last_prefix import prefixed
from reproduce.prefix import Prefix
from reproduce.public_text import SENTENCES
from reproduce.recipes import Recipe
from reproduce.results import key, peak_memory_mib

RELATION = Relation.ADD_REMOVE
METHODS = ("zero-shot", "calibrated", "mezo", "dpzero")


@dataclass(frozen=True)
class Cell:
    """One training run; its content is its name."""

    task: str
    data: str
    method: str
    epsilon: float | None
    clip: float | None
    seed: int | None
    size: str
    recipe: dict[str, Any]

    def row(self) -> str:
        """The table's row that the cell belongs to."""
        if self.method == "dpzero":
            return f"DPZero, eps = {self.epsilon:g}"
        return {"zero-shot": "zero-shot", "calibrated": "zero-shot, calibrated", "mezo": "MeZO"}[self.method]


def cells(
    size: str, recipe: Recipe, task: str, data: str, methods: Sequence[str], epsilons: Sequence[float]
) -> list[Cell]:
    """The cells of one task, in the order of the table's rows."""
    told = {k: v for k, v in asdict(recipe).items() if k not in ("tasks", "seeds", "epsilons", "clips")}

    def cell(method: str, epsilon: float | None, clip: float | None, seed: int | None) -> Cell:
        return Cell(task, data, method, epsilon, clip, seed, size, told)

    made: list[Cell] = []
    for method in methods:
        if method in ("zero-shot", "calibrated"):
            made.append(cell(method, None, None, None))
        elif method == "mezo":
            made += [cell(method, None, None, seed) for seed in recipe.seeds]
        else:
            made += [cell(method, e, C, s) for e in epsilons for C in recipe.clips for s in recipe.seeds]
    return made


class Bench:
    """One task on one model: encodes what a seed asks for, and runs cells on it. A ``prefix`` is trained if given."""

    def __init__(
        self,
        loaded: Loaded,
        task: Task,
        recipe: Recipe,
        read: Callable[[Split], Sequence[Example]],
        device: str,
        out: Path | None = None,
        prefix: Prefix | None = None,
    ) -> None:
        self.loaded, self.task, self.device, self.out = loaded, task, device, out
        prompt = task.masked if loaded.masked else task.causal_prompt(recipe.prompt)
        encoder = Encoder(loaded.tokenizer, task, prompt, masked=loaded.masked)
        self.prompt = prompt
        # The tail's rows are cheap: in blocks of a quarter of the expected batch few of them are fill.
        rows = max(16, (recipe.batch_size or 1024) // 4)
        if prefix is None:
            self.model = PromptedModel(loaded.model, encoder, recipe.trainable, cut_batch_size=rows)
        else:
            self.model = prefixed(loaded.model, encoder, prefix, cut_batch_size=rows)
        self._read = read
        self._known: dict[Example, int] = {}
        self._records: Records | None = None
        self.use(recipe)

    def use(self, recipe: Recipe) -> None:
        """Go on with another recipe for the same model, prompt and trained tensors; what is encoded stays."""
        self.recipe = recipe
        self.subject: PromptedModel | Rescaled = self.model
        if recipe.rescaled:
            self.subject = Rescaled(self.model, {LAST_NORM: public_scale(self.model, self.task)})
        self.start = self.subject.params.snapshot()

    def records(self, split: Split, seed: int | None) -> Records:
        """The encoded examples of a split: k for each class by seed, or the test set. What was encoded is kept."""
        examples = self._examples(split, seed)
        new = [e for e in dict.fromkeys(examples) if e not in self._known]
        if new:
            encoded = self.model.encode(new, progress=f"{self.task.title}: encoding {split}")
            first = len(self._known)
            self._known |= {e: first + i for i, e in enumerate(new)}
            self._records = encoded if self._records is None else self._records.join(encoded)
        assert self._records is not None
        return self._records[torch.tensor([self._known[e] for e in examples]).numpy()]

    def _examples(self, split: Split, seed: int | None) -> Sequence[Example]:
        if split == "test":
            return subsample(self._read(split), self.recipe.at_most)
        own = 42 if seed is None else seed
        chosen = self.recipe.examples_seed if self.recipe.examples_seed is not None else own
        return k_shot(self._read(split), self.recipe.k, len(self.task.labels), chosen)

    def check(self, cell: Cell) -> None:
        """Refuse now what the cell's plan would refuse later: a batch larger than the data, a delta of 1/n or more."""
        n = len(self._examples("train", cell.seed))
        if cell.method in ("mezo", "dpzero"):
            sampler_of(self.recipe.batch_size, n)
        if cell.method == "dpzero":
            check_delta(self.recipe.delta, n)

    def plan(self, cell: Cell, n: int) -> Plan | None:
        """The plan of a cell that trains."""
        r = self.recipe
        common: dict[str, Any] = {
            "n": n,
            "steps": r.steps,
            "batch_size": r.batch_size,
            "step_size": r.step_size,
            "zo_eps": r.zo_eps,
            "direction": dpzo.GaussianDirection(),
        }
        if cell.method == "mezo":
            return dpzo.mezo(**common)
        if cell.method == "dpzero":
            assert cell.epsilon is not None
            assert cell.clip is not None
            return dpzo.dpzero(
                **common,
                clip_threshold=cell.clip,
                relation=RELATION,
                target_epsilon=cell.epsilon,
                target_delta=r.delta,
            )
        return None

    def run(self, cell: Cell, bar: "tqdm[Any]", splits: Sequence[Split] = ("test",)) -> dict[str, Any]:
        """Run one cell and measure it on ``splits``; return its outcome."""
        try:
            return self._run(cell, bar, splits)
        finally:
            self._restart()  # the next task's bench takes the model as it finds it

    def _run(self, cell: Cell, bar: "tqdm[Any]", splits: Sequence[Split]) -> dict[str, Any]:
        # The plan first: what it refuses costs no encoding.
        plan = self.plan(cell, len(self._examples("train", cell.seed)))
        train = self.records("train", cell.seed)
        outcome: dict[str, Any] = {"n": len(train), "d": self.model.params.count}
        outcome |= {"prompt": self.prompt.template, "words": self.prompt.words}
        if plan is not None:
            outcome |= self._train(plan, train, cell, bar)
        shift = self.model.scores(train).mean(0) if cell.method == "calibrated" else None
        for split in splits:
            outcome |= self.measure(self.records(split, cell.seed), split, shift)
        return outcome | {"peak_memory_mib": round(peak_memory_mib(self.device))}

    def _restart(self) -> None:
        self.subject.params.restore(self.start)
        self._sync()

    def _sync(self) -> None:
        if isinstance(self.subject, Rescaled):
            self.subject.sync()

    def _train(self, plan: Plan, train: Records, cell: Cell, bar: "tqdm[Any]") -> dict[str, Any]:
        assert cell.seed is not None
        streams = Streams.secure(cell.seed)
        average = TailAverage(self.subject.params, plan.steps // 2) if self.recipe.average else None
        private = cell.method == "dpzero"
        tenths = sorted({max(1, plan.steps * k // 10) for k in range(1, 11)})
        spent = {t: plan.epsilon(self.recipe.delta, steps=t) for t in tenths} if private else {}
        steps = []
        with self._ledger(cell) as ledger:
            began = time.perf_counter()
            run = dpzo.run(plan, self.subject, train, streams, ledger=ledger)
            known = ledger.charged if ledger is not None else 0
            for step in run:
                steps.append(step)
                if average is not None:
                    average.add(step.index)
                bar.update()
                if step.index + 1 in spent:
                    bar.set_postfix_str(f"epsilon spent {rounded_up(spent[step.index + 1])}")
            seconds = time.perf_counter() - began
        if private and self.out is not None:
            told = statement(
                plan, self.recipe.delta, private=streams.are_private, released=len(steps), model=self.subject
            )
            write(told, self.out / "privacy" / key(asdict(cell)))
        if average is not None:
            average.apply()
        self._sync()
        event = plan.event()
        return {
            "epsilon": plan.epsilon(self.recipe.delta) if private else None,
            "delta": self.recipe.delta if private else None,
            "relation": str(plan.relation) if private else None,
            "accountant": choose(event, None, plan.relation) if private else None,
            "noise_multiplier": getattr(plan.mechanism, "noise_multiplier", None),
            "streams": "private" if streams.are_private else "NOT PRIVATE",
            "steps": len(steps),
            "resumed_after": known,
            "seconds": seconds,
            "seconds_per_step": seconds / len(steps),
            "transcript_sha256": dpzo.digest(steps),
        }

    def _ledger(self, cell: Cell) -> AbstractContextManager[Ledger | None]:
        """The run's write-ahead ledger: a run that was stopped goes on where it was, and what it spent stays spent."""
        if self.out is None:
            return nullcontext()
        folder = self.out / "ledgers"
        folder.mkdir(parents=True, exist_ok=True)
        data = fingerprint(list(self._examples("train", cell.seed)))
        return Ledger(folder / f"{key(asdict(cell))}.ledger", data=data)

    def measure(self, records: Records, split: str, shift: torch.Tensor | None = None) -> dict[str, Any]:
        """Accuracy and loss of the model as it is, on the records of a split; ``shift`` is taken from the scores."""
        scores = self.model.scores(records).double()
        if shift is not None:
            scores = scores - shift
        label = torch.from_numpy(records.label).to(scores.device)
        return {
            f"n_{split}": len(records),
            f"{split}_accuracy": (scores.argmax(1) == label).double().mean().item(),
            f"{split}_loss": torch.nn.functional.cross_entropy(scores, label).item(),
        }


LAST_NORM = "model.norm.weight"


@torch.inference_mode()
def public_scale(model: PromptedModel, task: Task) -> torch.Tensor:
    """(h,) scales for the last norm's gain: the inverse RMS of what it multiplies, on public text in the task's prompt.

    One channel of SmolLM2 carries half of the energy there. Scaled to a mean square of 1, so that a step moves as far.
    """
    if list(model.params) != [LAST_NORM] or model.cut is None:
        raise Refusal(f"a recipe that trains {LAST_NORM} alone, to rescale it", list(model.params), "Do not rescale.")
    examples = [Example((sentence,) * task.n_texts, 0) for sentence in SENTENCES]
    multiplied = model.cut.rest(model.model, model.encode(examples).passed) / model.params[LAST_NORM]
    scale: torch.Tensor = multiplied.square().mean(0).rsqrt()
    return scale / scale.square().mean().sqrt()


def say(text: str) -> None:
    """A line to the person, above any progress bar."""
    tqdm.write(text, file=sys.stderr)
