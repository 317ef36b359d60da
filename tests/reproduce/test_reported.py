"""The papers' numbers, typed here a second time from the table, row by row."""

import pytest

from reproduce.reported import TABLE2, TASKS, table2

PRINTED = """
MeZO             | 92.5 ±0.3 | 50.8 ±0.8 | 80.4 ±0.6 | 69.2 ±0.3 | 72.8 ±1.0 | 88.9 ±0.1
DPZero, eps = 6  | 92.2 ±0.3 | 49.3 ±0.6 | 77.8 ±1.0 | 67.4 ±0.3 | 71.9 ±0.9 | 87.6 ±0.9
DPZero, eps = 2  | 91.8 ±0.1 | 47.1 ±0.9 | 73.6 ±0.9 | 62.7 ±0.9 | 70.4 ±0.7 | 82.0 ±1.6
zero-shot        | 79.0      | 35.5      | 50.2      | 48.8      | 51.4      | 32.0
"""


def test_numbers_are_those_of_table_2() -> None:
    rows = {}
    for line in PRINTED.strip().splitlines():
        row, *numbers = (part.strip() for part in line.split("|"))
        rows[row] = [number.replace("±", "± ") for number in numbers]
    assert TASKS == ("sst2", "sst5", "snli", "mnli", "rte", "trec")
    assert {row: [table2(row, task) for task in TASKS] for row in TABLE2} == rows


@pytest.mark.parametrize(
    ("row", "task"), [("zero-shot, calibrated", "sst2"), ("MeZO", "mr"), ("DPZero, eps = 4", "sst2"), ("", "")]
)
def test_what_the_paper_does_not_have_is_none(row: str, task: str) -> None:
    assert table2(row, task) is None
