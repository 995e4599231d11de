"""The look of every figure, in one place: sizes, fonts, colours. Each figure is written as PNG and as PDF."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from utils.files import atomic_path

WIDTH, COLUMN = 7.0, 3.35  # inches: a page of text, and one column of two
DOTS_PER_INCH = 200
FORMATS = {".png": {"Software": None}, ".pdf": {"CreationDate": None}}  # no dates: the same numbers give the same bytes
SMALL = 6.5  # points: the smallest text
ON_WHITE = {"fc": "white", "ec": "none", "pad": 0.3}  # the box of a text that lines may cross

# Colour-blind-safe palettes (Okabe and Ito 2008; Tol 2021), each for one meaning. The explorer has the same ones.
LABELS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7")
CLUSTERS = ("#6a5acd", "#88ccee", "#44aa99", "#117733", "#999933", "#ddcc77", "#cc6677", "#882255", "#aa4499")
GREY, REST = "#7d7d7d", "#d3d3d3"  # the baseline; what is not looked at
ACCENT, SECOND = "#1f4e8c", "#c2571a"  # what is looked at; what is laid on top of it
RAMP = "cividis"  # for numbers

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.axisbelow": True,
    "grid.linewidth": 0.4,
    "grid.alpha": 0.4,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "pdf.fonttype": 42,  # TrueType, as publishers ask for
}


@contextlib.contextmanager
def new_figure(path, height: float, *, width: float = WIDTH, formats=tuple(FORMATS)) -> Iterator:
    """Yield an empty matplotlib Figure of this style; when the block ends well, write it beside `path` in every format.

    height, width: inches. The layout, which takes the longest, is made once for all formats.
    """
    import matplotlib
    from matplotlib.figure import Figure

    logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells of every table of a font that a PDF holds
    with matplotlib.rc_context(STYLE):
        figure = Figure((width, height), dpi=DOTS_PER_INCH, layout="constrained")
        yield figure
        fix_layout(figure)
        for suffix in formats:
            with atomic_path(Path(path).with_suffix(suffix)) as temporary:
                figure.savefig(temporary, format=suffix[1:], dpi=DOTS_PER_INCH, metadata=FORMATS[suffix])


def fix_layout(figure) -> None:
    """Lay the figure out now, and keep it so."""
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()
        figure.set_layout_engine(None)


def panels(figure, count: int, across: int, **shared) -> list:
    """`count` axes, `across` in a row, without the empty rest of the last row. shared: as for `Figure.subplots`."""
    across = max(1, min(count, across))
    grid = figure.subplots(-(-count // across), across, squeeze=False, **shared)
    for i, axes in enumerate(grid.flat):
        if i >= count:
            axes.remove()
        elif i + across >= count:  # the lowest of its column
            axes.tick_params(labelbottom=True)
    return list(grid.flat[:count])


def legend(figure, *, title: str = "") -> None:
    """One legend above all axes, each name once, under the title of the figure."""
    found = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    figure.legend(
        [*found.values()],
        [*found],
        loc="outside upper center",
        ncols=int(figure.get_figwidth() / 1.6),
        title=title or None,
        title_fontsize=9,
    )


def direct_labels(axes, points: dict[str, tuple[float, float]]) -> None:
    """Write each name beside its point, where it covers no other name or point; a thin line leads to names farther off.

    The layout is fixed by this, since places are found in points of the page.
    """
    from matplotlib.patheffects import withStroke

    fix_layout(axes.figure)
    scale = 72 / axes.figure.dpi
    places = {name: axes.transData.transform(point) * scale for name, point in points.items()}
    frame = [value * scale for value in axes.bbox.extents]
    taken = [(x - 2, y - 2, x + 2, y + 2) for x, y in places.values()]
    for name in sorted(places, key=lambda name: tuple(places[name])):
        x, y = places[name]
        width, height = 0.55 * SMALL * len(name) + 2, 1.1 * SMALL
        steps = [step * height / 2 for step in range(-24, 25)]
        boxes = [(dx, up - height / 2) for up in steps for dx in (4, -4 - width)]
        boxes += [(-width / 2, up - height / 2) for up in steps if abs(up) >= height]
        boxes.sort(key=lambda box: abs(box[1] + height / 2) + (box[0] < 0) + (box[0] == -width / 2))
        free = (
            (dx, dy)
            for dx, dy in boxes
            if frame[0] <= x + dx and x + dx + width <= frame[2] and frame[1] <= y + dy and y + dy + height <= frame[3]
            and not any(a < x + dx + width and x + dx < c and b < y + dy + height and y + dy < d for a, b, c, d in taken)
        )  # fmt: skip
        dx, dy = next(free, boxes[0])
        taken.append((x + dx, y + dy, x + dx + width, y + dy + height))
        middle = dy + height / 2
        far = abs(middle) > 1.2 * height
        axes.annotate(
            name, points[name], (dx + width / 2, middle), textcoords="offset points", fontsize=SMALL, ha="center",
            va="center", annotation_clip=False, path_effects=[withStroke(linewidth=1.5, foreground="white")],
            arrowprops={"arrowstyle": "-", "lw": 0.4, "color": GREY, "shrinkA": 0, "shrinkB": 2} if far else None,
        )  # fmt: skip
