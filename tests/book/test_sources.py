"""What a build of the book does not tell: a page left out, a formula printed as text, a test that is gone."""

import re

import pytest
import yaml

from tests.book.pages import BOOK, ROOT, labels, lint, listed, module, read_page, references, sources

PAGES = sources()
TOC = listed(yaml.safe_load((BOOK / "_toc.yml").read_text("utf-8")))
BY_PAGE = pytest.mark.parametrize("page", PAGES)


def test_every_page_is_in_the_table_of_contents_once_and_no_other():
    assert sorted(TOC) == sorted(PAGES)


def test_a_page_outside_the_table_is_seen():
    """Kills a reading of the table that finds root pages or chapters, but not sections below them."""
    toc = {"root": "a", "parts": [{"chapters": [{"file": "b", "sections": [{"file": "c"}]}]}, {"chapters": []}]}
    assert listed(toc) == ["a", "b", "c"]


@BY_PAGE
def test_formulas_and_fences(page):
    assert not list(lint(PAGES[page]))


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("Text\n\n$$ x $$\n\nmore", False),
        ("Text\n\n$$\nx\n$$\n", False),
        ("```{prf:theorem}\n:label: a\n\n$$ x $$\n```", False),
        ("```{math}\n$$ \\left\\lVert\n```", False),
        ("```python\n$$ x\n```", False),
        ("costs `$$` each", False),
        ("Text\n$$ x $$\n", True),
        ("Text $$ x $$\n", True),
        ("Text\n\n$$\nx\n\n", True),
        ("$\\left\\lVert x \\right\\rVert$", True),
        ("````{dropdown} S\n```{code-cell} python3\n1\n```\n````", True),
        ("```{code-cell} python3\n1\n", True),
        ("```{prf:proof}\ntext\n\n```{math}\nx\n```\n", True),
        ("| a | b |\n| --- | --- |\n| $P(A \\mid D)$ | c |\n\n| one |\n", False),
        ("| a | b |\n| --- | --- |\n| $|F|$ | c |\n", True),
    ],
)
def test_a_bad_formula_or_fence_is_seen(text, wrong):
    assert bool(list(lint(text))) is wrong


def missing(pages, papers):
    """References of pages to what is nowhere."""
    known = set().union(*(labels(text) for text in pages.values()))
    for page, text in pages.items():
        for role, target in references(text):
            there = papers if role.startswith("cite") else set(pages) if role == "doc" else known
            if target not in there:
                yield f"{page}: {role} {target}"


def papers():
    """Keys of the bibliography; a key that comes twice comes twice."""
    return re.findall(r"^@\w+\{([^,]+),", (BOOK / "references.bib").read_text("utf-8"), re.M)


def test_every_reference_leads_somewhere():
    assert not list(missing(PAGES, set(papers())))
    assert len(papers()) == len(set(papers()))


@pytest.mark.parametrize(
    "text",
    [
        *("{ref}`ch-gone`", "{numref}`fig-gone`", "{eq}`eq-gone`", "{prf:ref}`thm-gone`", "{doc}`gone`"),
        *("{cite:p}`a,gone`", "{ref}`there <ch-gone>`"),
    ],
)
def test_a_reference_to_nothing_is_seen(text):
    page = "(ch-b)=\n# B\n\n```{math}\n:label: eq-b\nx\n```\n:name: fig-b\n:    name: fig-c\n"
    good = "{ref}`ch-b` {ref}`so <ch-b>` {eq}`eq-b` {numref}`fig-c` {doc}`b` {cite:t}`a`\n"
    assert not list(missing({"b": page + good}, {"a"}))
    assert len(list(missing({"b": page + good + text}, {"a"}))) == 1


@BY_PAGE
def test_every_file_that_a_page_names_is_there(page):
    named = re.findall(r"`((?:tests|dpzo|reproduce|synthetic|book)/[\w/.-]+\.\w+)(?:::(\w+))?`", PAGES[page])
    for file, name in named:
        assert (ROOT / file).is_file(), file
        assert not name or re.search(rf"^def {name}\(", (ROOT / file).read_text("utf-8"), re.M), name


@BY_PAGE
def test_a_page_with_cells_says_that_it_has_some(page):
    """Without the front matter the cells would be printed and not run."""
    text = PAGES[page]
    assert ("```{code-cell}" not in text) or text.startswith("---\njupytext:")


@pytest.mark.parametrize(
    ("html", "faults"),
    [
        ('<p>fine <code>\\(</code> <script>"\\("</script></p><a href="https://arxiv.org">p</a>', 0),
        ('<svg><g data-mml-node="merror" fill="red"></g></svg>', 1),
        ('<svg><text fill="red">x</text></svg>', 1),
        ("<p>so \\(x^{2\\) is</p>", 1),
        ("<div>\\[ x</div>", 1),
        ('<script src="https://cdn.example/x.js"></script>', 1),
        ('<link rel="stylesheet" href="//cdn.example/x.css"/>', 1),
        ('<img src="http://example/x.png">', 1),
        ("<pre>a</pre><p>\\(x</p>", 1),
        ("<p>costs $5 or $6, <code>$a$</code>, $ </p><p>and $</p>", 0),
        ("<p>so $a_<em>1</em> = 2$ is</p>", 1),
        ("<li>so $x$", 1),
        ('<script>const later = "https://cdn.example/x.js"; fetch("_static/x.json")</script>', 0),
        ('<script type="module">import x from "https://cdn.example/x.js"</script>', 1),
        ("<script>import('//cdn.example/x.js')</script>", 1),
        ("<script>fetch( `https://cdn.example/x.json`)</script>", 1),
        ("<script>tag.src = 'http://cdn.example/x.js'</script>", 1),
    ],
)
def test_a_fault_in_a_page_is_seen(html, faults):
    assert len(read_page(html).faults) == faults


def test_docstrings_are_escaped_outside_of_literals():
    assert module("docstrings").escaped("|v| * 2, **bold**, ``|v| * 2``") == r"\|v\| \* 2, **bold**, ``|v| * 2``"
