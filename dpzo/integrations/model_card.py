"""The privacy statement on a Hugging Face model card: a marked section of README.md and three tags, offline."""

import re
from pathlib import Path

import yaml  # type: ignore[import-untyped]
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.repocard import REGEX_YAML_BLOCK

from dpzo.errors import Refusal
from dpzo.files import write_whole
from dpzo.report import Statement

BEGIN, END = "<!-- dpzo privacy statement: begin -->", "<!-- dpzo privacy statement: end -->"
TAGS = ("differential-privacy", "dpzo", "zeroth-order")
_ENTRY = re.compile(  # the key and its lines; comments and blank lines only where an item follows
    r"^tags[ \t]*:[^\r\n]*(?:(?:\r?\n[ \t]*(?:#[^\r\n]*)?)*\r?\n[ \t-][^\r\n]*)*", re.MULTILINE
)


def attach(card: str | Path, made: Statement) -> Path:
    """Put ``made`` into the model card at ``card``, a README.md or the folder that has or gets one; return its path.

    What is outside of the section's markers stays as it is, but for the tags, to which ours are added. Doing it again
    replaces the section. A run that may not be called private gets no tag that says otherwise, and loses the one that
    it got here.

    Raises:
        Refusal: a card that cannot be read or written, metadata that Hugging Face would not read, or broken markers.
    """
    path = Path(card) if Path(card).suffix.lower() == ".md" else Path(card) / "README.md"
    try:
        with open(path, encoding="utf-8", newline="") as file:
            before = file.read()
    except FileNotFoundError:
        before = ""
    except (OSError, UnicodeError) as error:
        raise Refusal(f"a model card in UTF-8 at {path}", error, "Give the path of a README.md.") from error
    mark, text = before[: before.startswith("\ufeff")], before.removeprefix("\ufeff")
    newline = "\r\n" if "\r\n" in text else "\n"
    section = f"{BEGIN}\n## Privacy\n\n{made.markdown()}{END}".replace("\n", newline)
    body = _with_section(text, section, newline)
    dropped = TAGS[:1] if BEGIN in text and not made.private else ()
    wanted = TAGS if made.private else TAGS[1:]
    try:
        write_whole(path, mark + _with_tags(body, wanted, dropped, newline))
    except (ValueError, yaml.YAMLError) as error:
        if isinstance(error, Refusal):
            raise
        raise Refusal(f"metadata in YAML at the top of {path}", error, "Mend the block between the ---.") from error
    return path


def _with_section(text: str, section: str, newline: str) -> str:
    begins, ends = text.count(BEGIN), text.count(END)
    if not begins and not ends:
        gap = "" if not text else newline * (2 - text.endswith("\n"))
        return text + gap + section + newline
    start, stop = text.find(BEGIN), text.find(END)
    if (begins, ends) != (1, 1) or start > stop:
        raise Refusal(
            "one privacy section, between its two markers",
            f"{begins} and {ends} markers",
            "Remove the markers and what is between them; nothing was changed.",
        )
    return text[:start] + section + text[stop + len(END) :]


def _with_tags(text: str, wanted: tuple[str, ...], dropped: tuple[str, ...], newline: str) -> str:
    match = REGEX_YAML_BLOCK.search(text)
    if match is None:
        entry = ModelCardData(tags=list(wanted)).to_yaml(line_break=newline)
        return f"---{newline}{entry}{newline}---{newline}{text}"
    card = ModelCard(text, ignore_metadata_errors=True)
    had = card.data.get("tags", [])
    tags = [tag for tag in had if tag not in dropped] + [tag for tag in wanted if tag not in had]
    if tags == had:
        return text
    card.data["tags"] = tags
    # huggingface_hub would rewrite the whole block: comments go, "language: no" becomes false. Touch the tags alone.
    block = match.group(2)
    entry = ModelCardData(tags=tags).to_yaml(line_break=newline)
    edited, count = _ENTRY.subn(lambda _: entry, block, count=1)
    edited = edited if count else f"{block.rstrip()}{newline}{entry}".lstrip()
    try:
        alike = yaml.safe_load(edited) == (yaml.safe_load(block) or {}) | {"tags": tags}
    except yaml.YAMLError:
        alike = False
    return text[: match.start(2)] + edited + text[match.end(2) :] if alike else str(card)
