"""What can be told of the book's pages: from their sources, and from a page as a browser shows it."""

import importlib.util
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"
_FENCE = re.compile(r"^\s*(`{3,}|:{3,}|~{3,})\s*(?:\{([\w:-]+)\})?")
_RAW = re.compile(r"\\[(\[].{0,40}|\$(?=\S)[^$]+(?<=\S)\$")
_REMOTE = re.compile(
    r"""(?:\b(?:import|from)\b\s*\(?|\b(?:fetch|importScripts|Worker|WebSocket|EventSource)\s*\(|\.open\([^,)]*,|\.(?:src|href)\s*=)"""
    r"""\s*["'`](?:\w+:)?//[^"'`]*"""
)
_LITERAL = {None, "code-cell", "code-block", "math", "eval-rst", "bibliography", "literalinclude"}


def sources() -> dict[str, str]:
    """Text of each page by its name in the table of contents."""
    paths = (path for path in BOOK.rglob("*.md") if "_build" not in path.parts)
    return {path.relative_to(BOOK).with_suffix("").as_posix(): path.read_text("utf-8") for path in sorted(paths)}


def module(name: str) -> ModuleType:
    """A Python file of the book."""
    spec = importlib.util.spec_from_file_location(name, BOOK / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def listed(toc: Any) -> list[str]:
    """The files of a table of contents, in order."""
    if isinstance(toc, list):
        return [name for part in toc for name in listed(part)]
    if not isinstance(toc, dict):
        return []
    own = [toc[key] for key in ("root", "file") if key in toc]
    return own + [name for part in toc.values() for name in listed(part)]


def lint(text: str) -> Iterator[str]:
    """What Sphinx would print as text, or drop, without a warning."""
    open_fences: list[tuple[str, str | None, int]] = []
    in_math, before, columns = 0, "", 0
    for number, line in enumerate(text.splitlines(), 1):
        fence = None if in_math else _FENCE.match(line)
        inside = open_fences[-1] if open_fences else None
        if fence and inside and fence[1].startswith(inside[0]) and not fence[2] and line.strip() == fence[1]:
            open_fences.pop()
        elif fence and not (inside and inside[1] in _LITERAL):
            if inside and fence[2] == "code-cell":
                yield f"line {number}: a cell inside of {inside[1]} is not run"
            open_fences.append((fence[1], fence[2], number))
        elif not (inside and inside[1] in _LITERAL):
            if r"\left\lVert" in line:
                yield rf"line {number}: \left\lVert is drawn too small"
            dollars = len(re.findall(r"(?<!\\)\$\$", re.sub(r"`[^`]*`", "", line)))
            if dollars and not in_math and (before.strip() or not line.lstrip().startswith("$$")):
                yield f"line {number}: $$ without a blank line before it is printed as text"
            if dollars % 2:
                in_math = 0 if in_math else number
            bars = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
            if bars and columns and bars != columns:
                yield f"line {number}: a row of {bars - 1} cells in a table of {columns - 1}"
            columns = columns if bars and columns else bars
        before = line
    if in_math:
        yield f"line {in_math}: $$ is never closed"
    for _, kind, number in open_fences:
        yield f"line {number}: the fence of {kind or 'code'} is never closed"


def prose(text: str) -> str:
    """The text without front matter, cells, code and formulas in fences."""
    open_fences: list[tuple[str, str | None]] = []
    kept = []
    for line in re.sub(r"\A---\n.*?^---$", "", text, flags=re.M | re.S).splitlines():
        fence = _FENCE.match(line)
        mark, kind = open_fences[-1] if open_fences else ("", "")
        if fence and mark and fence[1].startswith(mark) and line.strip() == fence[1]:
            open_fences.pop()
        elif fence and kind not in _LITERAL:
            open_fences.append((fence[1], fence[2]))
        elif kind not in _LITERAL:
            kept.append(line)
    return "\n".join(kept)


def cells(text: str) -> str:
    """The code of all cells, without their options."""
    found = re.findall(r"^(`{3,})\{code-cell\}[^\n]*\n(.*?)^\1\s*$", text, flags=re.M | re.S)
    return "\n".join(re.sub(r"\A---\n.*?^---$|^:[^\n]*", "", code, flags=re.M | re.S) for _, code in found)


def labels(text: str) -> set[str]:
    """What a page gives others to refer to."""
    figures = re.findall(r"^:?\s*(?:name|:name|:label|label):\s*([\w-]+)\s*$", text, re.M)
    return set(re.findall(r"^\(([\w-]+)\)=", text, re.M)) | set(figures)


def references(text: str) -> set[tuple[str, str]]:
    """(role, target) of each reference to a label, a document or a paper."""
    found = re.findall(r"\{(ref|numref|eq|prf:ref|doc|cite:[tp]|cite)\}`([^`]+)`", prose(text))
    return {(role, _target(part)) for role, told in found for part in _parts(role, told)}


def _parts(role: str, told: str) -> list[str]:
    return told.split(",") if role.startswith("cite") else [told]


def _target(told: str) -> str:
    inner = re.search(r"<([^>]+)>\s*$", told)
    return (inner[1] if inner else told).strip()


class _Page(HTMLParser):
    _QUIET = frozenset(("script", "style", "code", "pre", "textarea", "title"))
    _VOID = frozenset(("img", "br", "hr", "meta", "link", "input", "source", "col", "wbr", "base", "embed", "track"))
    _INLINE = frozenset(("a", "abbr", "b", "cite", "code", "em", "i", "kbd", "small", "span", "strong", "sub", "sup"))

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.text = ""  # of the block so far

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.end_block(tag)
        told = {name: value or "" for name, value in attrs}
        if tag not in self._VOID:
            self.open.append(tag)
        if "red" in (told.get("fill"), told.get("mathcolor")) or told.get("data-mml-node") == "merror":
            self.faults.append(f"TeX that MathJax does not know, in {tag}")
        loaded = [told.get("src", ""), told.get("data", "") if tag == "object" else ""]
        loaded += [told.get("href", "")] if tag in ("link", "image", "use") else []
        self.faults += [f"{tag} loads {url}" for url in loaded if re.match(r"(https?:)?//", url)]
        self.ids |= {told[name] for name in ("id", "name") if name in told}
        self.links += filter(None, [*loaded, told.get("href", "") if tag == "a" else ""])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        self.end_block(tag)
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, text: str) -> None:
        if "script" in self.open:
            self.faults += [f"a script loads {told[0]}" for told in _REMOTE.finditer(text)]
        if not self._QUIET & set(self.open):
            self.text += text

    def end_block(self, tag: str = "") -> None:
        if tag not in self._INLINE:
            self.faults += [f"formula printed as text: {raw[0]}" for raw in _RAW.finditer(self.text)]
            self.text = ""


def read_page(html: str) -> _Page:
    """Return a page's faults, its ids, and what it links to or loads."""
    page = _Page()
    page.feed(html)
    page.close()
    page.end_block()
    return page


def dead_links(site: Path) -> Iterator[str]:
    """What the pages of ``site`` link to in it, or load from it, and what is not there."""
    pages = {path: read_page(path.read_text("utf-8")) for path in site.glob("*.html")}
    for path, page in pages.items():
        for link in page.links:
            url = urlsplit(link)
            if url.scheme or url.netloc:
                continue
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            if not target.exists():
                yield f"{path.name}: {link} is not there"
            elif url.fragment and target in pages and unquote(url.fragment) not in pages[target].ids:
                yield f"{path.name}: {link} has no such place"
