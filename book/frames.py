"""A slider over pictures that are made while the book is built, for pages without a kernel, a server or a library."""

import io
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

import dpzo

_PAGE = """<div class="frames">
{pictures}
<label hidden>
<input type="range" max="{last}" value="{first}" autocomplete="off" aria-label="{what}"><span></span>
</label>
<script>
(box => {{
  const pictures = box.querySelectorAll("img"), label = box.querySelector("label"), [input, told] = label.children
  const show = () => {{
    pictures.forEach((picture, at) => picture.hidden = at != input.value)
    told.textContent = pictures[input.value].alt
    input.setAttribute("aria-valuetext", told.textContent)
  }}
  input.addEventListener("input", show)
  label.hidden = false
  show()
}})(document.currentScript.parentElement)
</script>
</div>"""


@dataclass(frozen=True, repr=False)
class Page:
    """HTML that a notebook shows as it is."""

    data: str

    def _repr_html_(self) -> str:
        return self.data


def slider(what: str, frames: Mapping[str, Figure], printed: Sequence[str]) -> Page:
    """Show one frame at a time, with a slider that moves through them, and close the figures.

    Args:
        what: the quantity that tells the frames apart, such as "dimension d".
        frames: a figure for each of its values, all of one size.
        printed: the values shown on paper, side by side; the first of them also stands there when the page is opened,
            and where there is no JavaScript.

    Raises:
        Refusal: fewer than two frames, or none of a printed value.
    """
    values = list(frames)
    if len(values) < 2 or not printed or set(printed) - set(values):
        told = f"frames {values}, printed {list(printed)}"
        raise dpzo.Refusal("two or more frames, some of them printed", told, "Name printed frames by their values.")
    pictures = [
        _picture(f"{what} = {value}", frame, value in printed, value == printed[0]) for value, frame in frames.items()
    ]
    first, last = values.index(printed[0]), len(values) - 1
    return Page(_PAGE.format(pictures="\n".join(pictures), first=first, last=last, what=escape(what)))


def _picture(told: str, frame: Figure, printed: bool, first: bool) -> str:
    """An image that holds its picture. As an SVG it would take two or three times the space, most of it for letters."""
    drawn = io.BytesIO()
    frame.savefig(drawn, format="webp", dpi=160, pil_kwargs={"lossless": True})
    plt.close(frame)
    width, height = (round(96 * inches) for inches in frame.get_size_inches())
    more = f"{' class=printed' * printed}{' hidden' * (not first)}"
    source = f"data:image/webp;base64,{b64encode(drawn.getvalue()).decode()}"
    return f'<img src="{source}" alt="{escape(told)}" width="{width}" height="{height}"{more}>'
