"""The tasks: the six of DPZero's Table 2 for masked models, and movie reviews as the packaged default.

Templates, label words and lengths of the masked prompts: Zhang et al. 2024 (DPZero), RoBERTa protocol, after
Malladi et al. 2023 (MeZO), Table 13. Causal prompts named "paper" are the papers' too: MeZO's OPT prompt for
SST-2, with the label words of SST-5 where there are five. Those named "ours" or "sentiment" come from no paper.
"""

import difflib
from collections.abc import Mapping

from dpzo.errors import Refusal
from dpzo.tasks.prompt import Prompt
from dpzo.tasks.task import Task

_BINARY = (" terrible", " great")
_FIVE = (" terrible", " bad", " okay", " good", " great")
_WAS = "{text} It was"
_WAS_MASK = "{text} It was{mask}."
_NLI_MASK = "{text1:chop}?{mask}, {text2:lower}"
_NLI = "Premise: {text1}\nHypothesis: {text2}\nDoes the premise imply the hypothesis?"
# A small instruction-tuned model completes this far better than "It was": 73 % against 52 % untrained.
_SENTIMENT = Prompt("Review: {text}\nSentiment:", (" negative", " positive"))
# Label order of the natural-language-inference tasks: that of GLUE on the hub, so that 0 means the same here.
_THREE_WAY = ("entailment", "neutral", "contradiction")
_THREE_WORDS = (" Yes", " Maybe", " No")
_NO_GOLD = frozenset({"-", "-1"})

TASKS: Mapping[str, Task] = {
    "mr": Task(
        name="mr",
        title="MR (Rotten Tomatoes)",
        labels=("negative", "positive"),
        masked=Prompt(_WAS_MASK, _BINARY),
        causal={"paper": Prompt(_WAS, _BINARY), "sentiment": _SENTIMENT},
        max_length=128,
        first_limit=110,
    ),
    "sst2": Task(
        name="sst2",
        title="SST-2",
        labels=("negative", "positive"),
        masked=Prompt(_WAS_MASK, _BINARY),
        causal={"paper": Prompt(_WAS, _BINARY), "sentiment": _SENTIMENT},
        max_length=128,
    ),
    "sst5": Task(
        name="sst5",
        title="SST-5",
        labels=("very negative", "negative", "neutral", "positive", "very positive"),
        masked=Prompt(_WAS_MASK, _FIVE),
        causal={"paper": Prompt(_WAS, _FIVE)},
        max_length=128,
        first_limit=110,
    ),
    "snli": Task(
        name="snli",
        title="SNLI",
        labels=_THREE_WAY,
        masked=Prompt(_NLI_MASK, _THREE_WORDS),
        causal={"ours": Prompt(_NLI, _THREE_WORDS)},
        max_length=256,
        unlabelled=_NO_GOLD,
    ),
    "mnli": Task(
        name="mnli",
        title="MNLI",
        labels=_THREE_WAY,
        masked=Prompt(_NLI_MASK, _THREE_WORDS),
        causal={"ours": Prompt(_NLI, _THREE_WORDS)},
        max_length=256,
        first_limit=240,
        unlabelled=_NO_GOLD,
    ),
    "rte": Task(
        name="rte",
        title="RTE",
        labels=("entailment", "not_entailment"),
        masked=Prompt(_NLI_MASK, (" Yes", " No")),
        causal={"ours": Prompt(_NLI, (" Yes", " No"))},
        max_length=256,
        first_limit=240,
    ),
    "trec": Task(
        name="trec",
        title="TREC",
        labels=("DESC", "ENTY", "ABBR", "HUM", "LOC", "NUM"),
        masked=Prompt("{mask}: {text}", (" Description", " Entity", " Expression", " Human", " Location", " Number")),
        causal={
            "ours": Prompt(
                "Question: {text}\nThe answer is a",
                (" description", " thing", " term", " person", " place", " number"),
            )
        },
        max_length=128,
        first_limit=110,
        # LM-BFF numbers them as above, the hub from ABBR = 0.
        numbered=False,
    ),
}


def get_task(name: str) -> Task:
    """The task of that name; "SST-2" and "sst2" are the same. A Refusal lists the names and the nearest.

    >>> get_task("SST-2").masked.template
    '{text} It was{mask}.'
    """
    key = name.lower().replace("-", "").replace("_", "")
    if key not in TASKS:
        near = difflib.get_close_matches(key, TASKS, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else "Choose one of these, or build a Task of your own."
        raise Refusal(f"a task out of {', '.join(TASKS)}", repr(name), hint)
    return TASKS[key]
