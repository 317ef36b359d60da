from collections import Counter

import pytest

from dpzo.errors import Refusal
from dpzo.tasks import Example
from dpzo.tasks.splits import carve_validation, complete, cut_a_tenth, cut_in_three


def rows(*sizes: int) -> list[Example]:
    return [Example((f"{label} {i}",), label) for label, n in enumerate(sizes) for i in range(n)]


def test_a_tenth_of_every_large_class_is_carved_and_small_classes_stay_whole() -> None:
    examples = rows(1162, 599, 600, 86)
    parts = carve_validation(examples)
    assert Counter(e.label for e in parts["validation"]) == {0: 116, 2: 60}
    assert Counter(e.label for e in parts["train"]) == {0: 1046, 1: 599, 2: 540, 3: 86}
    assert set(parts["train"]) | set(parts["validation"]) == set(examples)
    assert len(parts["train"]) + len(parts["validation"]) == len(examples)


def test_512_shots_remain_in_every_class_that_had_them() -> None:
    for n in (512, 569, 599, 600, 700):
        assert len(carve_validation(rows(n))["train"]) >= 512


def test_the_carving_is_fixed_and_not_the_first_rows() -> None:
    examples = rows(1000)
    assert carve_validation(examples) == carve_validation(examples)
    assert carve_validation(examples)["validation"] != tuple(examples[:100])


def test_a_source_with_validation_rows_is_left_as_it_is() -> None:
    examples = rows(700)
    assert complete("train", True, examples, "x") == tuple(examples)
    assert complete("test", False, examples, "x") == tuple(examples)
    assert len(complete("train", False, examples, "x")) == 630
    assert len(complete("validation", False, examples, "x")) == 70


def test_small_classes_give_no_validation_but_all_their_training_rows() -> None:
    assert complete("train", False, rows(5, 5), "x") == tuple(rows(5, 5))
    with pytest.raises(Refusal, match="10 training rows in x"):
        complete("validation", False, rows(5, 5), "x")


def test_a_source_without_splits_is_cut_1500_530_and_the_rest() -> None:
    examples = rows(4265, 4265)
    parts = cut_in_three(examples, "x")
    assert {split: len(part) for split, part in parts.items()} == {
        "train": 6500,
        "validation": 530,
        "test": 1500,
    }
    assert len(set(parts["train"]) | set(parts["validation"]) | set(parts["test"])) == 8530
    assert parts == cut_in_three(examples, "x")
    # 750 of each class expected; hypergeometric standard deviation 17.6, so 110 is beyond 6 of them.
    assert abs(sum(e.label for e in parts["test"]) - 750) < 110


def test_too_few_rows_to_cut_are_refused() -> None:
    with pytest.raises(Refusal, match=r"more than 2030 rows.*2030 rows in reviews\.csv"):
        cut_in_three(rows(2030), "reviews.csv")
    assert len(cut_in_three(rows(2031), "x")["train"]) == 1


def test_a_carved_validation_set_is_told_with_its_size(capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "validation"):
        complete(split, False, rows(700, 100), "reviews.csv")  # type: ignore[arg-type]
        told = "dpzo: no validation rows: 70 of the 800 training rows in reviews.csv serve as them\n"
        assert capsys.readouterr() == ("", told)
    complete("train", True, rows(700), "x")
    complete("test", False, rows(700), "x")
    complete("train", False, rows(5, 5), "x")
    assert capsys.readouterr() == ("", "")


def test_a_tenth_of_every_class_is_cut_for_a_test_set(capsys: pytest.CaptureFixture[str]) -> None:
    examples = rows(100, 39, 3)
    parts = cut_a_tenth(examples, "x")
    assert parts == cut_a_tenth(examples, "x")
    for split in ("test", "validation"):
        assert Counter(e.label for e in parts[split]) == {0: 10, 1: 3, 2: 1}  # type: ignore[index]
    assert sorted(e.texts for part in parts.values() for e in part) == sorted(e.texts for e in examples)
    assert parts["test"] != tuple(examples[:14])
    assert "the 142 training rows in x are cut into 14 test, 14 validation, 114 train\n" in capsys.readouterr().err


def test_a_class_too_small_to_be_cut_is_refused() -> None:
    with pytest.raises(Refusal, match=r"3 rows of every label, to cut x; got a label with 2\. Add a test file"):
        cut_a_tenth(rows(100, 2), "x")
