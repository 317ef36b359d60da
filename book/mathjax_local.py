"""Serve MathJax from the installed wheel ``django-static-mathjax``, so that the book needs no network."""

from importlib.resources import files
from pathlib import Path
from typing import Any


def setup(app: Any) -> dict[str, Any]:
    """Copy one file with all of MathJax and its fonts into the site, and point the pages to it."""
    source = files("mathjax") / "static/mathjax/es5/tex-svg-full.js"
    target = Path(app.outdir).parent / "mathjax" / "tex-svg-full.js"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(source.read_bytes())
    app.config.html_static_path.append(str(target.parent))
    app.config.mathjax_path = target.name
    return {"version": "1", "parallel_read_safe": True}
