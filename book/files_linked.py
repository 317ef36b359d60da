"""Where a page names a file of the repository, or a test in it, the name leads to a copy of that file in the site.

Of a test the page shows the name alone; the pointer on it tells the file, as paper does.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

ROOT = Path(__file__).resolve().parents[1]
_NAMED = re.compile(r"((?:tests|dpzo|reproduce|synthetic)/[\w/]+\.py)(?:::(\w+))?")


def _link(app: Any, doctree: nodes.document, page: str) -> None:
    if app.builder.name != "html":  # on paper there is nothing to click
        return
    for literal in list(doctree.findall(nodes.literal)):
        named = _NAMED.fullmatch(literal.astext())
        if named and (ROOT / named[1]).is_file():
            _copy(named[1], Path(app.outdir))
            url = app.builder.get_relative_uri(page, f"files/{named[1]}") + _line(named[1], named[2])
            link = nodes.reference("", "", refuri=url, internal=True, classes=["file"], reftitle=named[0])
            literal.replace_self(link)
            link += nodes.literal("", named[2] or named[1])


def _line(name: str, test: str | None) -> str:
    for number, line in enumerate((ROOT / name).read_text("utf-8").splitlines(), 1):
        if test and line.startswith(f"def {test}("):
            return f"#L-{number}"
    return ""


@cache  # once in a build
def _copy(name: str, site: Path) -> None:
    target = site / "files" / f"{name}.html"
    target.parent.mkdir(parents=True, exist_ok=True)
    style = HtmlFormatter(full=True, title=name, linenos="inline", lineanchors="L", anchorlinenos=True)
    target.write_text(highlight((ROOT / name).read_text("utf-8"), PythonLexer(), style), "utf-8")


def setup(app: Any) -> dict[str, Any]:
    """Link when references are resolved, which happens for each page that is written."""
    app.connect("doctree-resolved", _link)
    return {"version": "1", "parallel_read_safe": True}
