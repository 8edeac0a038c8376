"""The look of the kit's figures: colours, quiet axes, and a figure that shows itself.

Nothing here goes through pyplot: no backend is chosen, no style changed, no figure kept open.
"""

from __future__ import annotations

import io

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

# Okabe & Ito's colours, which colour-blind readers tell apart too; yellow is too faint for lines.
BLUE, SKY, ORANGE = "#0072B2", "#56B4E9", "#D55E00"
FOLD_COLOURS = (BLUE, ORANGE, "#009E73", "#CC79A7", SKY, "#E69F00", "#222222")
FOLD_MARKERS = "os^DvPX"
INK, MUTED, FAINT, GRID = "#222222", "#5F6368", "#C9CDD2", "#E8EAED"


class Chart(Figure):
    """A figure that shows itself in a notebook, with or without ``%matplotlib inline``.

    IPython shows a plain Figure only once the inline backend is active, which pyplot brings about;
    ``_repr_png_`` is asked in any case, and either way the picture shows once.
    """

    def png(self) -> bytes:
        """The figure as a PNG of 200 dots per inch; the same figure gives the same bytes."""
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=200)
        return buffer.getvalue()

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        return self.png(), {"width": round(100 * self.get_figwidth())}


def make_panels(count: int, height: float, *, x: str, y: str = "") -> tuple[Chart, list[Axes]]:
    """Quiet axes, up to three a row, each row ``height`` inches, with common axis labels."""
    rows, columns = -(-count // 3), min(3, count)
    layout = ConstrainedLayoutEngine(hspace=0.05, wspace=0.04)
    figure = Chart(figsize=(9.0, 0.5 + height * rows), layout=layout, facecolor="white")
    figure.supxlabel(x, fontsize=10, color=MUTED)
    figure.supylabel(y, fontsize=10, color=MUTED)
    panels: list[Axes] = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels[count:]:
        axes.remove()
    for axes in panels[:count]:
        axes.set(facecolor="white", axisbelow=True)
        axes.grid(color=GRID, linewidth=0.8)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, colors=MUTED, labelsize=9)
    return figure, panels[:count]


def set_title(axes: Axes, text: str, note: str = "") -> None:
    """A panel's name, and a number at the right; ``$`` in a name starts no formula."""
    axes.set_title(text, loc="left", fontsize=10, color=INK, parse_math=False)
    axes.set_title(note, loc="right", fontsize=9, color=MUTED, parse_math=False)


def add_legend(figure: Figure, axes: Axes) -> None:
    """One legend above all panels, of what ``axes`` shows."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=8, frameon=False, labelcolor=INK)
