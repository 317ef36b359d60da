"""One style for every plot: readable in print and in grey, direct labels, theory as lines and measurement as marks."""

from typing import Any

COLOURS = {"DPZero": "#174a70", "DPGD-0th": "#c46a1b", "DP-GD": "#5d7f3f"}
MARKS = {"DPZero": "o", "DPGD-0th": "s", "DP-GD": "^"}
LINES = {"DPZero": "-", "DPGD-0th": "--", "DP-GD": ":"}


def axes(rows: int = 1, columns: int = 1, *, width: float = 3.4, height: float = 3.0, **shared: Any) -> tuple[Any, Any]:
    """A figure and its (rows, columns) array of axes, without a screen."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    size = (width * columns, height * rows)
    figure, grid = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", **shared)
    for one in grid.flat:
        one.spines[["top", "right"]].set_visible(False)
        one.grid(color="#e4e4e4", linewidth=0.6)
        one.set_axisbelow(True)
        one.tick_params(labelsize=8, which="both")
        for text in (one.xaxis.label, one.yaxis.label, one.title):
            text.set_fontsize(9)
    return figure, grid


def label_ends(on: Any, ends: list[tuple[float, float, str, str]]) -> None:
    """Write the text of each (x, y, text, colour) to the right of its line's last point, but no two upon each other.

    Call it when the limits of ``on`` are set.
    """
    height = on.get_window_extent().height / on.figure.dpi * 72
    least = 10 / height  # as a share of the axes: a line of text
    on.set_ylim(on.get_ylim())
    at = [on.transAxes.inverted().transform(on.transData.transform((x, y)))[1] for x, y, _, _ in ends]
    places: dict[int, float] = {}
    for one in sorted(range(len(ends)), key=lambda k: at[k]):
        places[one] = max(at[one], max(places.values(), default=-1.0) + least)
    for one, (x, _, text, colour) in enumerate(ends):
        where = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "annotation_clip": False}
        on.annotate(text, (x, places[one]), xytext=(6, 0), color=colour, fontsize=8, va="center", **where)


def legend(figure: Any, on: Any) -> None:
    """Name what ``on`` shows in one line above all panels: the ends of lines may be too close for labels."""
    handles, names = on.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(names), frameon=False, fontsize=9)


def save(figure: Any, path: str) -> None:
    """Write the picture and let go of it."""
    import matplotlib.pyplot as plt

    figure.savefig(path, dpi=160)
    plt.close(figure)
