from pathlib import Path

import pytest

from dpzo.errors import Refusal
from dpzo.tasks import TASKS, Example, Prompt, Split, Task, load_examples
from dpzo.tasks.folder import LAYOUTS, find_in_folder

SST2, SST5, TREC, RTE, SNLI, MNLI, MR = (TASKS[n] for n in ("sst2", "sst5", "trec", "rte", "snli", "mnli", "mr"))


def put(folder: Path, name: str, content: str, encoding: str = "utf-8") -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding=encoding, newline="")


def texts(task: Task, split: Split, folder: Path) -> list[tuple[str, int]]:
    return [(" | ".join(e.texts), e.label) for e in load_examples(task, split, data_dir=folder)]


def binary(folder: Path, train: int = 2) -> None:
    put(folder, "stsa.binary.train", "".join(f"{i % 2} train {i}\n" for i in range(train)))
    put(folder, "stsa.binary.dev", "1 dev crème\n0 dev\n")
    put(folder, "stsa.binary.test", "0 test\n")


def pairs(n: int, tag: str) -> str:
    names = ("entailment", "not_entailment")
    rows = "".join(f"{i}\tP {tag} {i}.\tH {i}.\t{names[i % 2]}\n" for i in range(n))
    return "index\tsentence1\tsentence2\tlabel\n" + rows


@pytest.mark.parametrize("level", ["", "any"])
def test_sentence_files_of_sst2_directly_and_one_level_down(tmp_path: Path, level: str) -> None:
    binary(tmp_path / level)
    assert texts(SST2, "train", tmp_path) == [("train 0", 0), ("train 1", 1)]
    # GLUE's test sentences are the original dev sentences.
    assert texts(SST2, "test", tmp_path) == [("dev crème", 1), ("dev", 0)]
    assert texts(SST2, "validation", tmp_path) == [("test", 0)]


def test_two_levels_down_is_too_deep(tmp_path: Path) -> None:
    binary(tmp_path / "a" / "b")
    with pytest.raises(Refusal, match=r"stsa\.binary\.train.*none of these in"):
        find_in_folder(SST2, "train", tmp_path)


def test_sentence_files_of_sst5(tmp_path: Path) -> None:
    for split in ("train", "dev", "test"):
        put(tmp_path, f"stsa.fine.{split}", "".join(f"{i} {split} {i}\n" for i in range(5)))
    assert texts(SST5, "validation", tmp_path) == [(f"dev {i}", i) for i in range(5)]
    assert texts(SST5, "test", tmp_path)[4] == ("test 4", 4)


def test_both_writings_of_trec_agree(tmp_path: Path) -> None:
    names = ("DESC:def", "ENTY:food", "ABBR:exp", "HUM:ind", "LOC:city", "NUM:date")
    put(tmp_path / "a", "TREC.train.all", "".join(f"{i} Lom\xe9 {i} ?\n" for i in range(6)), "latin-1")
    put(tmp_path / "a", "TREC.test.all", "5 How far ?\n")
    put(tmp_path / "b", "raw_TREC.train", "".join(f"{n} Lom\xe9 {i} ?\n" for i, n in enumerate(names)), "latin-1")
    put(tmp_path / "b", "raw_TREC.test", "NUM:dist How far ?\n")
    expected = [(f"Lom\xe9 {i} ?", i) for i in range(6)]
    assert texts(TREC, "train", tmp_path / "a") == texts(TREC, "train", tmp_path / "b") == expected
    assert texts(TREC, "test", tmp_path / "a") == texts(TREC, "test", tmp_path / "b") == [("How far ?", 5)]
    assert TREC.labels[5] == "NUM"


def test_a_file_without_splits_is_cut_in_three(tmp_path: Path) -> None:
    put(tmp_path, "rt-polarity.all", "".join(f"{i % 2} review {i} \x85 \n" for i in range(2100)), "latin-1")
    parts = [load_examples(MR, split, data_dir=tmp_path) for split in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [70, 530, 1500]
    assert len({example for part in parts for example in part}) == 2100
    assert str(find_in_folder(MR, "test", tmp_path)).endswith("/rt-polarity.all")


def test_glue_with_hidden_test_labels_is_tested_on_dev_and_validated_on_a_part_of_train(tmp_path: Path) -> None:
    put(tmp_path / "rte_glue", "train.tsv", pairs(1300, "train"))
    put(tmp_path / "rte_glue", "dev.tsv", pairs(4, "dev"))
    put(tmp_path / "rte_glue", "test.tsv", "index\tsentence1\tsentence2\n0\tA\tB\n")
    assert texts(RTE, "test", tmp_path)[:2] == [("P dev 0. | H 0.", 0), ("P dev 1. | H 1.", 1)]
    train, validation = (load_examples(RTE, split, data_dir=tmp_path) for split in ("train", "validation"))
    assert (len(train), len(validation)) == (1170, 130)
    assert not set(train) & set(validation)
    assert str(find_in_folder(RTE, "test", tmp_path)) == "rte_glue/dev.tsv"
    assert str(find_in_folder(RTE, "train", tmp_path)).endswith("without the validation carved from it")


def test_glue_with_test_labels_keeps_its_own_three_splits(tmp_path: Path) -> None:
    for split in ("train", "dev", "test"):
        put(tmp_path / "sst2_alps", f"{split}.tsv", f"sentence\tlabel\n{split} when bears \t1\n{split} kids \t0\n")
    for split, file in (("train", "train"), ("validation", "dev"), ("test", "test")):
        assert texts(SST2, split, tmp_path) == [(f"{file} when bears", 1), (f"{file} kids", 0)]  # type: ignore[arg-type]


def test_fewglue_is_tested_on_its_full_validation_file(tmp_path: Path) -> None:
    for name in ("train", "dev32", "val"):
        rows = [f'{{"premise": "{name} {i}", "hypothesis": "h", "label": "{n}", "idx": 0}}\n'
                for i, n in enumerate(("entailment", "not_entailment"))]  # fmt: skip
        put(tmp_path / "RTE", f"{name}.jsonl", "".join(rows))
    put(tmp_path / "RTE", "test.jsonl", '{"premise": "a", "hypothesis": "b", "idx": 0}\n')
    for split, file in (("train", "train"), ("validation", "dev32"), ("test", "val")):
        assert texts(RTE, split, tmp_path) == [(f"{file} 0 | h", 0), (f"{file} 1 | h", 1)]  # type: ignore[arg-type]


def test_mnli_from_glue_reads_the_matched_part(tmp_path: Path) -> None:
    names = ("entailment", "neutral", "contradiction")
    head = "index\tgenre\tsentence1\tsentence2\tlabel1\tgold_label\n"
    for name in ("train", "dev_matched"):
        rows = "".join(f"{i}\tg\t{name}\th\tneutral\t{n}\n" for i, n in enumerate((*names, "-")))
        put(tmp_path / "MNLI", f"{name}.tsv", head + rows)
    put(tmp_path / "MNLI", "dev_mismatched.tsv", "nothing\n")
    put(tmp_path / "MNLI", "test_matched.tsv", "index\tsentence1\tsentence2\n0\ta\tb\n")
    assert texts(MNLI, "test", tmp_path) == [("dev_matched | h", i) for i in range(3)]
    assert len(load_examples(MNLI, "train", data_dir=tmp_path)) == 3


def test_esnli_takes_train_and_validation_from_dev(tmp_path: Path) -> None:
    names = ("entailment", "neutral", "contradiction")
    for split, n in (("dev", 2100), ("test", 3)):
        put(tmp_path, f"labels.{split}", "".join(f"{names[i % 3]}\n" for i in range(n)))
        put(tmp_path, f"s1.{split}", "".join(f"{split} {i} . \n" for i in range(n)))
        put(tmp_path, f"s2.{split}", "h . \n" * n)
    assert texts(SNLI, "test", tmp_path) == [(f"test {i} . | h .", i) for i in range(3)]
    train, validation = (load_examples(SNLI, split, data_dir=tmp_path) for split in ("train", "validation"))
    assert (len(train), len(validation)) == (1890, 210)
    assert not set(train) & set(validation)


def test_three_file_snli_with_train_uses_all_three(tmp_path: Path) -> None:
    for split in ("train", "dev", "test"):
        put(tmp_path, f"labels.{split}", "entailment\nneutral\ncontradiction\n")
        put(tmp_path, f"s1.{split}", f"{split}\n" * 3)
        put(tmp_path, f"s2.{split}", "h\n" * 3)
    assert texts(SNLI, "train", tmp_path)[0] == ("train | h", 0)
    assert texts(SNLI, "validation", tmp_path)[0] == ("dev | h", 0)


OWN = Task(
    name="mine",
    title="Mine",
    labels=("calm", "angry"),
    masked=Prompt("{text} So{mask}", (" calm", " angry")),
    causal={"ours": Prompt("{text} So", (" calm", " angry"))},
    max_length=64,
)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
def test_a_users_own_task_and_tables(tmp_path: Path, suffix: str) -> None:
    rows = {
        "csv": 'text,label\n"a, {mask}",angry\nb,0\n',
        "tsv": "text\tlabel\na, {mask}\tangry\nb\t0\n",
        "jsonl": '{"text": "a, {mask}", "label": "angry"}\n{"text": "b", "label": 0}\n',
    }[suffix]
    put(tmp_path, f"train.{suffix}", rows)
    put(tmp_path, f"test.{suffix}", rows)
    assert texts(OWN, "train", tmp_path) == texts(OWN, "test", tmp_path) == [("a, {mask}", 1), ("b", 0)]
    with pytest.raises(Refusal, match="Give a validation file"):
        load_examples(OWN, "validation", data_dir=tmp_path)
    put(tmp_path, f"validation.{suffix}", rows)
    assert texts(OWN, "validation", tmp_path) == [("a, {mask}", 1), ("b", 0)]


def test_a_known_name_with_other_labels_does_not_get_the_known_layout(tmp_path: Path) -> None:
    binary(tmp_path)
    other = Task("sst2", "Other", ("a", "b"), SST2.masked, SST2.causal, 128)
    with pytest.raises(Refusal, match="none of these"):
        find_in_folder(other, "train", tmp_path)


def test_only_tables_in_a_folder_of_the_tasks_name_count_one_level_down(tmp_path: Path) -> None:
    put(tmp_path / "rte_glue", "train.tsv", pairs(4, "x"))
    put(tmp_path / "MRPC", "train.tsv", pairs(4, "x"))
    for task in (SST2, MR):
        with pytest.raises(Refusal, match="none of these"):
            find_in_folder(task, "train", tmp_path)
    put(tmp_path / "GLUE-SST-2", "train.tsv", "sentence\tlabel\na\t0\nb\t1\n")
    assert texts(SST2, "train", tmp_path) == [("a", 0), ("b", 1)]


def test_files_in_the_folder_itself_come_first_and_tables_before_layouts(tmp_path: Path) -> None:
    put(tmp_path / "SST-2", "train.tsv", "sentence\tlabel\nbelow\t0\nb\t1\n")
    binary(tmp_path / "other")
    assert texts(SST2, "train", tmp_path)[0] == ("below", 0)
    binary(tmp_path)
    assert texts(SST2, "train", tmp_path)[0] == ("train 0", 0)


def test_two_folders_of_the_same_kind_are_refused(tmp_path: Path) -> None:
    binary(tmp_path / "a")
    binary(tmp_path / "b")
    with pytest.raises(Refusal, match=r"one folder of SST-2; got .*a/stsa.*b/stsa"):
        find_in_folder(SST2, "train", tmp_path)
    for name in ("SST-2", "sst2"):
        put(tmp_path / name, "train.csv", "text,label\na,0\nb,1\n")
    with pytest.raises(Refusal, match="one folder of SST-2"):
        find_in_folder(SST2, "train", tmp_path)


def test_ambiguous_files_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "train.csv", "text,label\na,0\nb,1\n")
    put(tmp_path, "train.tsv", "text\tlabel\na\t0\nb\t1\n")
    with pytest.raises(Refusal, match=r"one train file.*train\.csv, .*train\.tsv"):
        find_in_folder(SST2, "train", tmp_path)
    (tmp_path / "train.tsv").unlink()
    for name in ("dev", "val", "test"):
        put(tmp_path, f"{name}.csv", "text,label\na,0\n")
    with pytest.raises(Refusal, match="at most two labelled held-out files"):
        find_in_folder(SST2, "train", tmp_path)


def test_no_labelled_held_out_file_means_no_test_set(tmp_path: Path) -> None:
    put(tmp_path, "train.csv", "text,label\na,0\nb,1\n")
    put(tmp_path, "test.csv", "text\na\n")
    assert len(load_examples(SST2, "train", data_dir=tmp_path)) == 2
    with pytest.raises(Refusal, match=r"a labelled test or dev file of SST-2; got only train\.csv"):
        load_examples(SST2, "test", data_dir=tmp_path)


def test_integers_are_no_labels_of_trec_in_a_users_table(tmp_path: Path) -> None:
    put(tmp_path, "train.csv", "text,label\nWhat is it?,0\n")
    with pytest.raises(Refusal, match=r"DESC, ENTY, ABBR, HUM, LOC, NUM; got .*train\.csv line 2: another\."):
        load_examples(TREC, "train", data_dir=tmp_path)


def test_a_training_file_without_a_label_is_another_tasks(tmp_path: Path) -> None:
    put(tmp_path, "train.csv", "text,label\na,0\nb,1\n")
    put(tmp_path, "test.csv", "text,label\na,0\n")
    with pytest.raises(Refusal, match=r"every label of SST-5; got .*none of neutral, positive, very positive"):
        load_examples(SST5, "train", data_dir=tmp_path)
    assert load_examples(SST2, "test", data_dir=tmp_path) == (Example(("a",), 0),)


def test_a_missing_folder_and_a_file_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "no", tmp_path / "file"):
        (tmp_path / "file").write_text("x")
        with pytest.raises(Refusal, match="expected a folder of data"):
            find_in_folder(SST2, "train", path)


def test_bad_input_in_a_known_layout_names_file_and_line(tmp_path: Path) -> None:
    binary(tmp_path)
    put(tmp_path, "stsa.binary.dev", "1 fine\n2 odd\n")
    with pytest.raises(Refusal, match=r"a label out of 0, 1; got .*stsa\.binary\.dev line 2: another\."):
        load_examples(SST2, "test", data_dir=tmp_path)
    (tmp_path / "stsa.binary.dev").write_bytes(b"1 fine\n0 caf\xe9\n")
    with pytest.raises(Refusal, match=r"stsa\.binary\.dev line 2: something else at byte 6\."):
        load_examples(SST2, "test", data_dir=tmp_path)


def test_every_layout_is_of_a_known_task_and_has_a_training_and_a_test_file() -> None:
    for name, layouts in LAYOUTS.items():
        for layout in layouts:
            assert set(layout.numbers) <= set(TASKS[name].labels)
            assert {"train", "test"} <= set(layout.files)


def test_a_folder_without_a_test_file_is_cut_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, "train.csv", "text,label\n" + "".join(f"film {i},{i % 2}\n" for i in range(100)))
    splits: tuple[Split, ...] = ("train", "validation", "test")
    with pytest.raises(Refusal, match=r"or ask for a part of the training file as one \(cut_test=True\)"):
        load_examples(MR, "test", data_dir=tmp_path)
    parts = {split: load_examples(MR, split, data_dir=tmp_path, cut_test=True) for split in splits}
    assert {split: len(part) for split, part in parts.items()} == {"train": 80, "validation": 10, "test": 10}
    assert len({example for part in parts.values() for example in part}) == 100
    assert "cut into 10 test, 10 validation, 80 train" in capsys.readouterr().err
    assert str(find_in_folder(MR, "test", tmp_path, cut_test=True)).startswith("test part of ")
    put(tmp_path, "validation.csv", "text,label\nown,0\n")
    # A held-out file of any name is the test set, so there is nothing to cut.
    assert load_examples(MR, "test", data_dir=tmp_path, cut_test=True) == (Example(("own",), 0),)
    assert len(load_examples(MR, "train", data_dir=tmp_path, cut_test=True)) == 100


def test_a_class_absent_from_train_is_allowed_on_request(tmp_path: Path) -> None:
    put(tmp_path, "train.csv", "text,label\na,0\nb,1\n")
    with pytest.raises(Refusal, match="allow_absent=True"):
        load_examples(SST5, "train", data_dir=tmp_path)
    assert len(load_examples(SST5, "train", data_dir=tmp_path, allow_absent=True)) == 2


def test_a_folder_may_be_given_as_a_text(tmp_path: Path) -> None:
    binary(tmp_path)
    assert load_examples(SST2, "train", data_dir=str(tmp_path)) == load_examples(SST2, "train", data_dir=tmp_path)
