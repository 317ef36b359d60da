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
