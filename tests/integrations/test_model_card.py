import re
from dataclasses import replace

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st

from dpzo import Refusal, Relation, dpzero
from dpzo.integrations.model_card import BEGIN, END, TAGS, attach
from dpzo.report import statement

PLAN = dpzero(
    n=100,
    steps=5,
    step_size=0.1,
    zo_eps=0.1,
    clip_threshold=1.0,
    noise_multiplier=9.0,
    relation=Relation.REPLACE_ONE,
)
PRIVATE, SEEDED = (statement(PLAN, 1e-4, private=private) for private in (True, False))
CARD = """---
license: apache-2.0  # checked by our lawyers
language: no
tags:
- text-classification
- "on"
model-index:
- name: mine
  results:
  - task: {type: text-classification}
    dataset: {type: mr, name: MR}
    metrics: [{type: accuracy, value: 0.81}]
---

# A model of mine

Text, with --- and <!-- a comment -->.
"""


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refused(*_, **__):
        raise AssertionError("a model card needs no network")

    monkeypatch.setattr("socket.socket.connect", refused)


def outside(text):
    """The card without its privacy section."""
    return re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", "", text, flags=re.DOTALL)


def read(path):
    return path.read_bytes().decode()


def test_a_folder_without_a_card_gets_one(tmp_path):
    path = attach(tmp_path / "model", PRIVATE)
    assert path == tmp_path / "model" / "README.md"
    card = ModelCard.load(path)
    assert card.data.to_dict() == {"tags": list(TAGS)}
    assert PRIVATE.markdown() in card.text
    assert (
        card.text.startswith(f"\n{BEGIN}\n## Privacy\n\n**Differentially private**: epsilon = ") or BEGIN in card.text
    )
    assert [p.name for p in path.parent.iterdir()] == ["README.md"]


def test_the_users_text_and_metadata_stay(tmp_path):
    """Kills: huggingface_hub's own rewriting, which loses comments and makes "language: no" the word false."""
    (tmp_path / "README.md").write_text(CARD)
    text = read(attach(tmp_path, PRIVATE))
    expected = CARD.replace('- "on"\n', "- 'on'\n" + "".join(f"- {tag}\n" for tag in TAGS))
    assert outside(text) == expected + "\n\n"
    assert PRIVATE.markdown() in text
    assert ModelCard(text).data.tags == ["text-classification", "on", *TAGS]
    assert "language: false" in str(ModelCard(text)), "the mutant"


@pytest.mark.parametrize("made", [PRIVATE, SEEDED], ids=["private", "seeded"])
@pytest.mark.parametrize("before", [None, "", CARD, "# No metadata", CARD.replace("\n", "\r\n"), "\ufeff" + CARD])
def test_doing_it_again_changes_nothing(tmp_path, before, made):
    if before is not None:
        (tmp_path / "README.md").write_bytes(before.encode())
    first = read(attach(tmp_path, made))
    assert read(attach(tmp_path / "README.md", made)) == first
    assert first.count(BEGIN) == first.count(END) == first.count("## Privacy") == 1


def test_a_new_statement_takes_the_old_ones_place(tmp_path):
    (tmp_path / "README.md").write_text(CARD)
    attach(tmp_path, PRIVATE)
    with open(tmp_path / "README.md", "a") as file:
        file.write("\n## Below\n")
    more = statement(replace(PLAN, relation=Relation.ADD_REMOVE), 1e-4, private=True)
    before = outside(read(tmp_path / "README.md"))
    text = read(attach(tmp_path, more))
    assert outside(text) == before
    assert more.markdown() in text
    assert PRIVATE.markdown() not in text
    assert text.endswith(f"{END}\n\n## Below\n")


def test_a_run_that_is_not_private_bears_no_tag_that_says_so(tmp_path):
    assert ModelCard.load(attach(tmp_path / "new", SEEDED)).data.tags == ["dpzo", "zeroth-order"]
    (tmp_path / "README.md").write_text(CARD)
    attach(tmp_path, PRIVATE)
    text = read(attach(tmp_path, SEEDED))
    assert ModelCard(text).data.tags == ["text-classification", "on", "dpzo", "zeroth-order"]
    assert "**NOT PRIVATE**" in text
    assert "language: no\n" in text


class Coupled:
    couples_records = "A record's loss may change with its batch."


def test_a_run_whose_losses_nobody_tried_bears_no_tag_of_privacy(tmp_path):
    made = statement(PLAN, 1e-4, private=True, model=Coupled())
    assert ModelCard.load(attach(tmp_path / "new", made)).data.tags == ["dpzo", "zeroth-order"]
    attach(tmp_path, PRIVATE)
    text = read(attach(tmp_path, made))
    assert ModelCard(text).data.tags == ["dpzo", "zeroth-order"]
    assert "**NOT ACCOUNTED**" in text


def test_line_ends_and_a_byte_order_mark_stay(tmp_path):
    (tmp_path / "README.md").write_bytes(("\ufeff" + CARD.replace("\n", "\r\n")).encode())
    text = read(attach(tmp_path, PRIVATE))
    assert text.startswith("\ufeff---\r\nlicense")
    assert not re.search("[^\r]\n", text)
    assert ModelCard.load(tmp_path / "README.md").data.tags == ["text-classification", "on", *TAGS]


HEADS = {
    "no tags": ("license: mit", {"license": "mit"}),
    "empty": ("", {}),
    "flow list": ("tags: [a, b]\nlicense: mit", {"tags": ["a", "b"], "license": "mit"}),
    "one word": ("tags: a", {"tags": ["a"]}),
    "nothing": ("tags:\nlicense: mit", {"license": "mit"}),
    "indented": ("tags:\n  - a\n  - b\nlicense: mit", {"tags": ["a", "b"], "license": "mit"}),
    "last": ("license: mit\ntags:\n- a", {"tags": ["a"], "license": "mit"}),
    "all in one line": ("{license: mit, tags: [a]}", {"tags": ["a"], "license": "mit"}),
    "a comment between": ("tags:\n- a\n# why\n- b\nlicense: mit", {"tags": ["a", "b"], "license": "mit"}),
    "over lines": ("tags: [a,\nb]\nlicense: mit", {"tags": ["a", "b"], "license": "mit"}),
    "ours already": ("tags: [zeroth-order, a]", {"tags": ["zeroth-order", "a"]}),
    "a text that looks like tags": ("about: |\n  x\n  tags: y\nother: 1", {"about": "x\ntags: y\n", "other": 1}),
}


@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize(("head", "meant"), HEADS.values(), ids=HEADS)
def test_tags_are_added_to_metadata_of_any_shape(tmp_path, head, meant, newline):
    before = f"---\n{head}\n---\nBody.\n".replace("\n", newline)
    (tmp_path / "README.md").write_bytes(before.encode())
    text = read(attach(tmp_path, PRIVATE))
    data = yaml.safe_load(text.split("---")[1])
    had = meant.get("tags", [])
    assert data == meant | {"tags": [*had, *(tag for tag in TAGS if tag not in had)]}
    assert f"---{newline}Body.{newline}" in text


@given(st.text(max_size=60), st.sampled_from(["", "---\nlicense: mit\n---\n"]))
def test_any_text_stays(tmp_path_factory, body, head):
    folder = tmp_path_factory.mktemp("card")
    (folder / "README.md").write_bytes((head + body).encode())
    try:
        text = read(attach(folder, PRIVATE))
    except Refusal:
        assert (folder / "README.md").read_bytes().decode() == head + body
        assert body.lstrip().startswith("---"), "only a broken block of metadata is refused"
        return
    mark = "\ufeff" if (head + body).startswith("\ufeff") else ""
    assert text.startswith(mark)
    assert body.removeprefix(mark) in text
    attach(folder, PRIVATE)
    assert read(folder / "README.md") == text


@pytest.mark.parametrize(
    "bad",
    [
        f"{BEGIN}\nhalf",
        f"{END}\nhalf",
        f"{END}\n{BEGIN}",
        f"{BEGIN}{END}{BEGIN}{END}",
        "---\n- a list\n---\n",
        "---\n: : {\n---\n",
        "---\ntags: {a: b\n---\n",
    ],
)
def test_a_broken_card_is_refused_and_left_as_it_was(tmp_path, bad):
    (tmp_path / "README.md").write_text(bad)
    with pytest.raises(Refusal):
        attach(tmp_path, PRIVATE)
    assert (tmp_path / "README.md").read_text() == bad
    assert [p.name for p in tmp_path.iterdir()] == ["README.md"]


def test_a_card_that_cannot_be_read_or_written_is_refused(tmp_path):
    (tmp_path / "README.md").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Refusal, match="UTF-8"):
        attach(tmp_path, PRIVATE)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(Refusal):
        attach(tmp_path / "file", PRIVATE)
    (tmp_path / "folder.md").mkdir()
    with pytest.raises(Refusal):
        attach(tmp_path / "folder.md", PRIVATE)
