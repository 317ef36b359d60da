"""The book built from nothing, and looked at with a browser: minutes, so run with ``-m slow``."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.book.browser import asked, calculated, moved, needs_chromium, seen
from tests.book.pages import BOOK, dead_links, read_page, sources

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(importlib.util.find_spec("jupyter_book") is None, reason="needs dpzo[book]"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The pages, from an empty cache, with warnings as errors."""
    out = tmp_path_factory.mktemp("book")
    built = subprocess.run([sys.executable, BOOK / "build.py", "--out", out], capture_output=True, text=True)
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-5000:]
    return out / "_build" / "html"


def test_every_page_is_built(site):
    assert {path.stem for path in site.glob("*.html")} >= set(sources())


def test_links_lead_somewhere(site):
    assert not list(dead_links(site))


def test_a_dead_link_is_seen(tmp_path):
    (tmp_path / "a.html").write_text('<p id="here"><a href="b.html"></a><a href="#gone"></a><a href="#here"></a>')
    assert len(list(dead_links(tmp_path))) == 2


@pytest.mark.parametrize(
    "tag", ['<img src="{}">', '<script src="{}?v=1"></script>', '<link rel="stylesheet" href="{}"/>']
)
def test_a_file_that_a_page_loads_and_that_is_gone_is_seen(tmp_path, tag):
    (tmp_path / "a.html").write_text(tag.format("_static/there") + '<img src="data:image/svg+xml,x">')
    assert len(list(dead_links(tmp_path))) == 1
    (tmp_path / "_static").mkdir()
    (tmp_path / "_static/there").touch()
    assert not list(dead_links(tmp_path))


def test_no_style_sheet_loads_from_elsewhere(site):
    for sheet in site.rglob("*.css"):
        text = sheet.read_text("utf-8")
        assert not re.search(r"(?:url\(\s*['\"]?|@import\s+['\"])(?:https?:)?//", text), sheet


@needs_chromium
@pytest.mark.parametrize("page", sources())
def test_a_page_as_the_browser_shows_it(site, page):
    dom = seen(site / f"{page}.html")
    assert "</html>" in dom
    assert not read_page(dom).faults
    assert ('class="math' not in dom) or ("<mjx-container" in dom)  # where there are formulas, MathJax has run


def width_on_a_phone(page: Path) -> int:
    """How wide a page is that gets 390 pixels."""
    return asked(page, "return document.documentElement.scrollWidth")


@needs_chromium
@pytest.mark.parametrize("page", sources())
def test_a_page_fits_a_phone(site, page):
    """What is wide scrolls in its own box."""
    assert width_on_a_phone(site / f"{page}.html") <= 390


@needs_chromium
@pytest.mark.parametrize(("width", "fits"), [(300, True), (600, False)])
def test_a_page_that_is_too_wide_is_seen(tmp_path, width, fits):
    page = tmp_path / "a.html"
    page.write_text(f'<!doctype html><meta name="viewport" content="width=device-width"><p style="width: {width}px">x')
    assert (width_on_a_phone(page) <= 390) is fits


@needs_chromium
@pytest.mark.parametrize("tex", [r"\nosuchmacro", r"\frac{1}{2", r"\norm{x}"])
def test_a_bad_formula_is_seen_in_the_browser(site, tex):
    """The last one is a macro of the book's configuration, which this page lacks."""
    page = site / "_fault.html"
    script = '<script src="_static/tex-svg-full.js"></script>'
    page.write_text(rf"<html><head>{script}</head><body><p>so \({tex}\) is</p></body></html>")
    try:
        assert len(read_page(seen(page)).faults) >= 1
    finally:
        page.unlink()


@needs_chromium
@pytest.mark.parametrize("page", [page for page, text in sources().items() if "slider(" in text])
def test_sliders_move_and_are_no_burden(site, page):
    found = moved(site / f"{page}.html")
    assert len(found) == sources()[page].count("slider(")
    for slider in found:
        assert slider["control"]
        assert slider["drawn"]
        assert slider["shown"] == [[at] for at in range(len(slider["shown"]))]
        assert slider["size"] < 300_000
        assert len(slider["printed"]["shown"]) > 1
        assert not slider["printed"]["control"]


@needs_chromium
def test_the_calculator_in_its_page(site):
    found = calculated(site / "privacy.html", [{"epsilon": "2"}, {"epsilon": "4"}])
    assert all(at["there"] and not at["bad"] for at in found)
    assert float(found[0]["noise"]) > float(found[1]["noise"])


@pytest.mark.parametrize("page", sources())
def test_a_page_offers_its_source(site, page):
    assert f"_sources/{page}.md" in read_page((site / f"{page}.html").read_text("utf-8")).links
