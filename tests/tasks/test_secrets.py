"""What a record holds is in no refusal, no chain of exceptions, no log and no output, however a file is wrong."""

import json
import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dpzo.errors import Refusal
from dpzo.tasks import TASKS, Example, Split, k_shot, load_examples
from dpzo.tasks.hub import find_on_hub
from dpzo.tasks.task import Task

TOKEN = "Zyxomma"
MR, SST2, SNLI, TREC, RTE = (TASKS[name] for name in ("mr", "sst2", "snli", "trec", "rte"))
GOOD = f"text,label\n{TOKEN} one,0\n{TOKEN} two,1\n"

# Each a way in which a file is wrong, with the token in every cell that could be told.
FILES: dict[str, str | bytes] = {
    "no header.csv": f"{TOKEN} a film,{TOKEN}\n{TOKEN} another,1\n",
    "no header, one column.csv": f"{TOKEN}\n{TOKEN}\n",
    "no label column.csv": f"text,{TOKEN}\n{TOKEN},1\n",
    "the text for the label.csv": f"label,text\n{TOKEN} a film,0\n{TOKEN} another,1\n",
    "more columns.csv": GOOD + f"{TOKEN},{TOKEN},0\n",
    "fewer columns.csv": GOOD + f"{TOKEN}\n",
    "open quote.csv": GOOD + f'"{TOKEN} that never ends,0\n',
    "text after a quote.csv": GOOD + f'"{TOKEN}"{TOKEN},0\n',
    "an empty text.csv": GOOD + f" ,0\n{TOKEN},{TOKEN}\n",
    "only a header.csv": f"{TOKEN},{TOKEN}\n",
    "one label.csv": f"text,label\n{TOKEN},0\n",
    "latin-1.csv": GOOD.encode() + f"{TOKEN} caf\xe9,0\n".encode("latin-1"),
    "utf-16.csv": GOOD.encode("utf-16"),
    "no header.tsv": f"{TOKEN} a film\t{TOKEN}\n{TOKEN}\t1\n",
    "more columns.tsv": f"text\tlabel\n{TOKEN}\t0\t{TOKEN}\n{TOKEN}\t0\n",
    "an empty line.tsv": f"text\tlabel\n{TOKEN}\t0\n\n{TOKEN}\t{TOKEN}\n",
    "cut short.jsonl": json.dumps({"text": TOKEN, "label": 0}) + f'\n{{"text": "{TOKEN}", "la',
    "no JSON.jsonl": f"{TOKEN}: {TOKEN}\n",
    "a list.jsonl": json.dumps([TOKEN]) + "\n",
    "a text.jsonl": json.dumps(TOKEN) + "\n",
    "another key.jsonl": json.dumps({TOKEN: TOKEN, "label": 0}) + "\n",
    "a list for a text.jsonl": json.dumps({"text": [TOKEN], "label": 0}) + "\n",
    "another label.jsonl": json.dumps({"text": TOKEN, "label": TOKEN}) + "\n",
    "half a character.jsonl": json.dumps({"text": f"{TOKEN} \ud800", "label": 0}) + "\n",
    "a bad escape.jsonl": f'{{"text": "{TOKEN} \\x", "label": 0}}\n',
    "a control character.jsonl": f'{{"text": "{TOKEN} \t", "label": 0}}\n',
    "a long number.jsonl": f'{{"text": "{TOKEN}", "label": {"1" * 5000}}}\n',
    "deep.jsonl": f'{{"text": "{TOKEN}", "label": {"[" * 200_000}}}\n',
    "a key twice.jsonl": f'{{"text": "{TOKEN}", "text": {{"{TOKEN}": 1}}, "label": 0}}\n',
}
LAYOUTS: dict[str, tuple[Task, dict[str, str]]] = {
    "one word": (SST2, {"stsa.binary.train": f"0 {TOKEN}\n{TOKEN}\n"}),
    "another label": (SST2, {"stsa.binary.train": f"{TOKEN} {TOKEN}\n"}),
    "a coarse label": (TREC, {"raw_TREC.train": f"{TOKEN}:{TOKEN} {TOKEN}\n", "raw_TREC.test": f"{TOKEN}\n"}),
    "unequal lengths": (
        SNLI,
        {"labels.train": "neutral\n", "s1.train": f"{TOKEN}\n{TOKEN}\n", "s2.train": f"{TOKEN}\n"},
    ),
    "labels exchanged": (SNLI, {f"{stem}.train": f"{TOKEN}\n" for stem in ("labels", "s1", "s2")}),
}


def said(error: BaseException) -> str:
    """All of it: the message, the chain behind it, and what its parts hold."""
    text = "".join(traceback.format_exception(error))
    seen: BaseException | None = error
    while seen is not None:
        # A suppressed context is in no traceback, but reporters of crashes keep it all the same.
        text += repr(seen.args) + repr({name: value for name, value in vars(seen).items() if name != "object"})
        seen = seen.__cause__ or seen.__context__
    return text


def refused_in_silence(
    act: Callable[[], object], capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> str:
    capfd.readouterr()
    with caplog.at_level(logging.DEBUG), pytest.raises(Refusal) as refusal:
        act()
    out, err = capfd.readouterr()
    for text in (said(refusal.value), out, err, caplog.text):
        assert TOKEN.lower() not in text.lower()
    return str(refusal.value)


CASES = [(name, split) for name in FILES for split in ("train", "test") if (name, split) != ("one label.csv", "test")]


@pytest.mark.parametrize(("name", "split"), CASES)
def test_a_table_that_is_wrong_is_told_by_file_and_line_and_not_by_what_is_in_it(
    tmp_path: Path, name: str, split: Split, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    content, suffix = FILES[name], Path(name).suffix
    path = tmp_path / f"train{suffix}"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    for other in ("validation", "test"):
        (tmp_path / f"{other}{suffix}").write_bytes(path.read_bytes())
    assert str(tmp_path) in refused_in_silence(lambda: load_examples(MR, split, data_dir=tmp_path), capfd, caplog)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_known_layout_that_is_wrong(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    task, files = LAYOUTS[name]
    for file, content in files.items():
        (tmp_path / file).write_text(content)
        for end in ("dev", "test"):
            (tmp_path / file.replace("train", end)).write_text(content)
    assert str(tmp_path) in refused_in_silence(lambda: load_examples(task, "train", data_dir=tmp_path), capfd, caplog)


@pytest.mark.parametrize("content", [f"{TOKEN},0,{TOKEN}\n", f"text,label,source\n{TOKEN},{TOKEN},rotten_tomatoes\n"])
def test_a_packaged_file_that_is_wrong(
    tmp_path: Path, content: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "packaged.csv"
    path.write_text(content)
    refused_in_silence(lambda: load_examples(MR, "train", packaged=path), capfd, caplog)


COPIES: dict[str, str] = {
    "other columns.csv": f"{TOKEN},label\n{TOKEN},0\n",
    "another label.csv": f"text,label\n{TOKEN},7\n",
    "a text for the label.csv": f"text,label\na,0\n{TOKEN},{TOKEN}\n",
    "more columns.csv": f"text,label\n{TOKEN},0\n{TOKEN},0,{TOKEN}\n",
    "cut short.jsonl": f'{{"text": "{TOKEN}", "label": 0}}\n{{"text": "{TOKEN}", "la',
    "no JSON.jsonl": f"{TOKEN}\n",
    "two kinds.jsonl": f'{{"text": "{TOKEN}", "label": 0}}\n{{"text": {{"{TOKEN}": 1}}, "label": "{TOKEN}"}}\n',
}


@pytest.mark.parametrize("name", COPIES)
def test_a_local_copy_of_a_hub_data_set_that_is_wrong(
    tmp_path: Path,
    name: str,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its library's messages and logs quote the rows that it cannot parse."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "copy"
    folder.mkdir()
    for split in ("train", "validation", "test"):
        (folder / (split + Path(name).suffix)).write_text(COPIES[name])
    refused_in_silence(lambda: find_on_hub(MR, "train", folder).read(), capfd, caplog)


class Word:
    """A tokenizer that knows no text; the encoder never gets so far."""

    all_special_ids: tuple[int, ...] = ()
    unk_token_id, mask_token_id = None, 1

    def __call__(self, text: str, **options: Any) -> dict[str, list[int]]:
        text.encode()
        return {"input_ids": [hash(word) for word in text.split()]}


def test_examples_of_ones_own_that_are_wrong(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    from dpzo.models.encoding import Encoder

    encoder = Encoder(Word(), MR, MR.masked, masked=True, single_token=False)
    bad = [Example((f"{TOKEN} {i} \udcff" if i % 2 else f"{TOKEN} \U0001f600",), 0) for i in range(60)]
    told = refused_in_silence(lambda: encoder.encode(bad), capfd, caplog)
    assert "30 examples without, such as number 1, 3, 5, " in told
    assert "37, 39. Mend" in told, "twenty of them"
    label: Any = TOKEN
    told = refused_in_silence(lambda: k_shot([Example((TOKEN,), label)], 1, 2, 0), capfd, caplog)
    assert "another for 1 of 1 records" in told
    refused_in_silence(lambda: RTE.masked.render(Example((TOKEN,), 0)), capfd, caplog)


def test_content_is_shown_to_who_asks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "train.csv"
    for content in (f"{TOKEN} a film,{TOKEN}\n{TOKEN},1\n", f"text,label\na film,{TOKEN}\n"):
        path.write_text(content)
        monkeypatch.setenv("DPZO_SHOW_CONTENT", "1")
        with pytest.raises(Refusal, match=TOKEN):
            load_examples(MR, "train", data_dir=tmp_path)
        for no in ("0", "", "no"):
            monkeypatch.setenv("DPZO_SHOW_CONTENT", no)
            with pytest.raises(Refusal) as refusal:
                load_examples(MR, "train", data_dir=tmp_path)
            assert TOKEN not in str(refusal.value)


def test_what_the_hubs_library_logs_of_a_row_is_not_let_through(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    import datasets
    from datasets.utils.logging import get_logger, get_verbosity

    log, before, seen = get_logger("datasets.packaged_modules.csv"), get_verbosity(), []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())  # type: ignore[method-assign,assignment]

    def parsing(*args: object, **options: object) -> None:
        log.error(f"Failed to read {TOKEN}")
        raise datasets.exceptions.DatasetGenerationError(f"expected 2 columns, got: {TOKEN}")

    monkeypatch.setattr(datasets, "load_dataset", parsing)
    log.addHandler(handler)
    try:
        told = refused_in_silence(lambda: find_on_hub(MR, "train", tmp_path).read(), capfd, caplog)
        assert "got DatasetGenerationError. Go online" in told
        assert seen == []
        assert get_verbosity() == before
        log.error("afterwards")
        assert seen == ["afterwards"]
    finally:
        log.removeHandler(handler)
