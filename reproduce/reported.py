"""What the papers report, as printed: never a result of ours."""

# Zhang et al. 2024, Table 2: RoBERTa-large (355M), test accuracy in percent, mean and standard error over 3 seeds.
# Its zero-shot row is from Malladi et al. 2023.
TASKS = ("sst2", "sst5", "snli", "mnli", "rte", "trec")
TABLE2 = {
    "zero-shot": ((79.0, None), (35.5, None), (50.2, None), (48.8, None), (51.4, None), (32.0, None)),
    "MeZO": ((92.5, 0.3), (50.8, 0.8), (80.4, 0.6), (69.2, 0.3), (72.8, 1.0), (88.9, 0.1)),
    "DPZero, eps = 6": ((92.2, 0.3), (49.3, 0.6), (77.8, 1.0), (67.4, 0.3), (71.9, 0.9), (87.6, 0.9)),
    "DPZero, eps = 2": ((91.8, 0.1), (47.1, 0.9), (73.6, 0.9), (62.7, 0.9), (70.4, 0.7), (82.0, 1.6)),
}


def table2(row: str, task: str) -> str | None:
    """The paper's number for a row and a task, as a text; None where the paper has none."""
    if row not in TABLE2 or task not in TASKS:
        return None
    mean, error = TABLE2[row][TASKS.index(task)]
    return f"{mean:.1f}" if error is None else f"{mean:.1f} ± {error:.1f}"


# Liu et al. 2024, the figure of RoBERTa-large's accuracies (assets/roberta-acc.png of the authors' repository), read
# off its bars to 0.05: epsilon 2, 4, 8 for each task. "mnli" is as the figure says; its zero-shot bar is RTE's
# elsewhere.
STAGEWISE_TASKS = ("sst2", "sst5", "snli", "mnli", "trec")
STAGEWISE = {
    "zero-shot": ((79.0,), (35.5,), (50.2,), (51.4,), (32.0,)),
    "FT": ((93.0, 93.8, 93.8), (52.1, 52.1, 52.6), (86.4, 87.0, 87.2), (82.2, 82.3, 83.0), (96.4, 96.6, 96.6)),
    "FT-prefix": ((92.2, 92.1, 92.2), (45.2, 45.2, 44.8), (76.4, 76.8, 76.9), (64.0, 64.0, 63.9), (84.4, 84.4, 84.6)),
    "DPZero": ((93.1, 93.1, 93.6), (46.1, 46.6, 47.0), (78.0, 80.4, 80.9), (70.1, 69.4, 69.2), (87.4, 87.6, 87.2)),
    "DP-ZOSO": ((92.9, 92.6, 93.2), (45.8, 42.0, 41.2), (76.8, 78.9, 76.5), (66.3, 67.3, 69.2), (83.4, 83.8, 84.2)),
    "DP-ZOPO": ((92.8, 93.6, 93.6), (50.5, 51.1, 49.8), (80.1, 80.7, 81.4), (72.0, 74.9, 74.8), (91.4, 92.0, 91.8)),
}


def stagewise(row: str, task: str, epsilon: float | None) -> float | None:
    """The figure's number, in percent; None where it has none."""
    if row not in STAGEWISE or task not in STAGEWISE_TASKS:
        return None
    values = STAGEWISE[row][STAGEWISE_TASKS.index(task)]
    if len(values) == 1:
        return values[0]
    return values[(2.0, 4.0, 8.0).index(epsilon)] if epsilon in (2.0, 4.0, 8.0) else None
