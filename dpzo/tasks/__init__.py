"""Tasks: prompts and label words, and the records that fill them."""

from dpzo.tasks.catalogue import TASKS, get_task
from dpzo.tasks.kshot import k_shot, subsample
from dpzo.tasks.prompt import Example, Piece, Prompt
from dpzo.tasks.sources import Source, find_source, load_examples, say_repeated
from dpzo.tasks.splits import Split
from dpzo.tasks.task import Task

__all__ = [
    "TASKS",
    "Example",
    "Piece",
    "Prompt",
    "Source",
    "Split",
    "Task",
    "find_source",
    "get_task",
    "k_shot",
    "load_examples",
    "say_repeated",
    "subsample",
]
