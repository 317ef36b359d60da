"""Docstrings are plain text with a little mark-up: what reStructuredText would take for more is escaped."""

import re
from typing import Any

_LITERAL = re.compile(r"(``.*?``)")
_NAMES = re.compile(r"^(\s+)(\w+(?:, \w+)+):(?= )")


def escaped(line: str) -> str:
    r"""Escape bars and single stars outside of double backquotes.

    >>> escaped("clips |v| * 2, see ``|v|``")
    'clips \\|v\\| \\* 2, see ``|v|``'
    """
    parts = _LITERAL.split(line)
    parts[::2] = [re.sub(r"(\||(?<!\*)\*(?!\*))", r"\\\1", part) for part in parts[::2]]
    return "".join(parts)


def _process(app: Any, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    lines[:] = [line if line.lstrip().startswith((">>>", "...")) else _joined(escaped(line)) for line in lines]


def _joined(line: str) -> str:
    r"""Put several names of one line together, or Sphinx would take all but the last for a type.

    >>> _joined("    a, b: words, more: words")
    '    a,\u200bb: words, more: words'
    """
    return _NAMES.sub(lambda named: named[0].replace(", ", ",\u200b"), line)


def setup(app: Any) -> dict[str, Any]:
    """Come before napoleon, which adds mark-up of its own."""
    from sphinx.domains.python import PyObject

    next(field for field in PyObject.doc_field_types if field.name == "variable").label = "Attributes"
    app.connect("autodoc-process-docstring", _process, priority=100)
    return {"version": "1", "parallel_read_safe": True}
