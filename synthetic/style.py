"""One style for every plot: readable in print and in grey, direct labels, theory as lines and measurement as marks."""

from statistics import fmean
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
    plt.rcParams.update({"axes.titlesize": 9, "axes.labelsize": 9})
    figure, grid = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", **shared)
    for one in grid.flat:
        one.spines[["top", "right"]].set_visible(False)
        one.grid(color="#e4e4e4", linewidth=0.6)
        one.set_axisbelow(True)
        one.tick_params(labelsize=8, which="both")
    return figure, grid


def label_ends(on: Any, ends: list[tuple[float, float, str, str]]) -> None:
    """Write the text of each (x, y, text, colour) to the right of its line's last point, but no two upon each other.

    Call it when the limits of ``on`` are set.
    """
    on.set_ylim(on.get_ylim())
    height = on.get_window_extent().height / on.figure.dpi * 72
    at = [float(on.transAxes.inverted().transform(on.transData.transform((x, y)))[1]) for x, y, _, _ in ends]
    for (x, _, text, colour), place in zip(ends, apart(at, 10 / height), strict=True):  # a line of text is 10 points
        where = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "annotation_clip": False}
        on.annotate(text, (x, place), xytext=(6, 0), color=colour, fontsize=8, va="center", **where)


def apart(places: list[float], least: float) -> list[float]:
    """``places`` moved as little as can be (in squares) so that neighbours are ``least`` apart, in the same order.

    >>> [round(place, 2) for place in apart([0.5, 0.9, 0.52, 0.51], 0.1)]
    [0.41, 0.9, 0.61, 0.51]
    """
    order = sorted(range(len(places)), key=lambda k: places[k])
    blocks: list[list[float]] = []  # of places less what the order alone asks for: equal within a block
    for rank, one in enumerate(order):
        blocks.append([places[one] - rank * least])
        while len(blocks) > 1 and fmean(blocks[-2]) > fmean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    level = [fmean(block) for block in blocks for _ in block]
    moved = {one: level[rank] + rank * least for rank, one in enumerate(order)}
    return [moved[k] for k in range(len(places))]


def legend(figure: Any, on: Any) -> None:
    """Name what ``on`` shows in one line above all panels: the ends of lines may be too close for labels."""
    handles, names = on.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(names), frameon=False, fontsize=9)


def save(figure: Any, path: str) -> None:
    """Write the picture and let go of it."""
    import matplotlib.pyplot as plt

    figure.savefig(path, dpi=160)
    plt.close(figure)
