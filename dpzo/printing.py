"""Numbers and foreign words as a person reads them: none rounded down, none that draws, hides or turns the line."""

import re
from decimal import ROUND_CEILING, Context

# Characters that Python calls printable and that have no shape: joiners, fillers, blanks, selectors of a variant.
_SHAPELESS = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_INLINE = re.compile(r"[\\`*~$\[\]]|(?<![^\W_])_|_(?![^\W_])")
_LEADING = re.compile(r"^(?:[-+=>#]|\d+(?=[.)]))")


def rounded_up(value: float, digits: int = 4) -> str:
    """So many significant digits, and never less than the value: for every epsilon, delta and noise that is printed.

    >>> rounded_up(3.88065), rounded_up(1.17e-5), rounded_up(2.0), rounded_up(18310.125, 6), rounded_up(float("inf"))
    ('3.881', '1.17e-05', '2', '18310.2', 'inf')
    """
    up = Context(prec=digits, rounding=ROUND_CEILING).create_decimal(repr(float(value)))
    return f"{float(up):.{digits}g}"


def printable(text: str) -> str:
    """The text in one line; a control, a mark of direction or width, or half a surrogate is told by its number.

    >>> printable("a\\n\\x1b[2Jb\\u202ec")
    'a (U+001B)[2Jb(U+202E)c'
    """
    return "".join(
        char if char.isprintable() and not _SHAPELESS.match(char) else f"(U+{ord(char):04X})"
        for char in " ".join(text.split())
    )


def one_line(text: str) -> str:
    """The text as ``printable``, so that Markdown shows it as it stands, in a table's cell, a list and a comment.

    >>> print(one_line("**private** ![yes](https://x.org/y.png) <b> a|b &#x202e; snake_case"))
    \\*\\*private\\*\\* !\\[yes\\](https://x.org/y.png) &lt;b> a&#124;b &amp;#x202e; snake_case
    """
    line = _INLINE.sub(r"\\\g<0>", printable(text).replace("&", "&amp;"))
    line = line.replace("|", "&#124;").replace("<", "&lt;")
    return _LEADING.sub(lambda found: _escaped_start(found[0]), line)


def _escaped_start(start: str) -> str:
    return f"{start}\\" if start.isdigit() else f"\\{start}"
