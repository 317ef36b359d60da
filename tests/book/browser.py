"""Pages in a real browser: what stands in them after their scripts ran, and what a script of a test finds there."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
_OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")
_ASK = """<!doctype html><iframe width="390" height="800" src="{page}"></iframe><script>
addEventListener("load", async () => {{
  const window = document.querySelector("iframe").contentWindow
  await window.MathJax?.startup?.promise
  const told = ((window, document) => {{ {script} }})(window, window.document)
  document.title = "told " + JSON.stringify(told)
}})</script>"""


def seen(page: Path, *more: str) -> str:
    """The page's document after its scripts ran."""
    command = [CHROMIUM, *_OPTIONS, *more, "--virtual-time-budget=8000", "--dump-dom", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout


def asked(page: Path, script: str) -> Any:
    """What the body of a function of ``window`` and ``document`` returns in a page of a phone's width, typeset."""
    frame = page.with_name("_asked.html")
    frame.write_text(_ASK.format(page=page.name, script=script), "utf-8")
    try:
        told = re.search(r"<title>told (.*)</title>", seen(frame, "--allow-file-access-from-files"))
    finally:
        frame.unlink()
    assert told, "the script told nothing"
    return json.loads(html.unescape(told[1]))


def moved(page: Path) -> list[dict[str, Any]]:
    """What each slider of a page shows when it is opened, at each of its places, and on paper."""
    return asked(
        page,
        """const media = [...document.styleSheets].flatMap(sheet => [...sheet.cssRules]).filter(rule => rule.media)
        return [...document.querySelectorAll(".frames")].map(box => {
          const input = box.querySelector("input"), pictures = [...box.querySelectorAll("img")]
          const shown = () => pictures.flatMap((picture, at) => picture.checkVisibility() ? [at] : [])
          const found = {opened: shown(), control: input.checkVisibility(), shown: [], told: []}
          found.size = box.outerHTML.length
          found.drawn = pictures.every(picture => picture.naturalWidth > 99)
          for (let at = 0; at < pictures.length; at++) {
            input.value = at
            input.dispatchEvent(new Event("input", {bubbles: true}))
            found.shown.push(shown())
            found.told.push(input.nextElementSibling.textContent)
          }
          const told = media.map(rule => rule.media.mediaText)
          for (const rule of media) rule.media.mediaText = rule.media.mediaText === "print" ? "all" : "print"
          found.printed = {shown: shown(), control: input.checkVisibility()}
          media.forEach((rule, at) => rule.media.mediaText = told[at])
          return found
        })""",
    )


def calculated(page: Path, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What stands in a page's calculator after each of ``entries``, the values typed into fields by their names."""
    return asked(
        page,
        f"""const box = document.querySelector(".calculator"), field = name => box.querySelector(`[name=${{name}}]`)
        return {json.dumps(entries)}.map(entry => {{
          for (const [name, value] of Object.entries(entry)) {{
            field(name).value = value
            field(name).dispatchEvent(new Event("input", {{bubbles: true}}))
          }}
          const bad = [...box.querySelectorAll("[aria-invalid=true]")].map(field => field.name)
          const [epsilon, noise] = ["epsilon", "noise"].map(name => field(name).value)
          return {{epsilon, noise, bad, told: box.querySelector("output").textContent, there: box.checkVisibility()}}
        }})""",
    )
