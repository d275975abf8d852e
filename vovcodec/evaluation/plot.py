"""Rate–distortion plots as PNG. matplotlib is an extra: `pip install vovcodec[plot]`."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vovcodec.errors import MediaError, UsageError
from vovcodec.evaluation.curves import Curve, crossing
from vovcodec.evaluation.evaluate import Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_curves", "new_figure", "require_matplotlib", "save_figure", "write_plot"]

Points = Sequence[tuple[float, float]]
"""(bytes, value), fewest bytes first."""

# Okabe and Ito's colours, which people with any colour vision tell apart; ours first, then the others as they come.
_OURS, _OTHERS = "#D55E00", ("#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_MARKERS = "s^Dvp"
_TICKS = [125 * 2**power for power in range(-3, 16)]


def require_matplotlib() -> None:
    """Raises UsageError that says how to install it when matplotlib is absent."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UsageError("plots need matplotlib: pip install 'vovcodec[plot]'") from error


def new_figure(
    n_rows: int, n_columns: int, panel_inches: tuple[float, float]
) -> tuple[Figure, Sequence[Sequence[Axes]]]:
    """An empty figure and its panels by row and column. Raises UsageError without matplotlib."""
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(panel_inches[0] * n_columns, panel_inches[1] * n_rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(n_rows, n_columns, squeeze=False)


def draw_curves(
    axes: Axes, curves: Mapping[str, Points], *, ours: Sequence[str], higher_is_better: bool = True
) -> None:
    """Values over the bytes (logarithmic), a line for each name; a ring and its bytes where another overtakes ours.

    ours: the names that are this codec's; the first one's crossing points are marked.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    sign = 1 if higher_is_better else -1
    own = Curve((size, sign * value) for size, value in curves.get(ours[0], ())) if ours else None
    others = [name for name in curves if name not in ours]
    n_labels = 0
    for name, points in curves.items():
        if not points:
            continue
        if name in ours:
            style = {"color": _OURS, "marker": "o", "linewidth": 2.0, "zorder": 3}
            style["linestyle"] = "-" if name == ours[0] else "--"
        else:
            rank = others.index(name)
            style = {"color": _OTHERS[rank % len(_OTHERS)], "marker": _MARKERS[rank % len(_MARKERS)], "linewidth": 1.3}
        axes.plot(*zip(*points, strict=True), markersize=3.5, label=name, **style)
        overtaken = crossing(own, Curve((size, sign * value) for size, value in points)) if own else None
        if name in others and overtaken is not None and overtaken.size_bytes is not None:
            ring = {"markersize": 9, "markerfacecolor": "none", "markeredgecolor": style["color"], "zorder": 4}
            axes.plot(overtaken.size_bytes, sign * own.at(overtaken.size_bytes), "o", **ring)
            # In a corner that these curves leave empty: next to their rings, labels would cover one another.
            label = {"transform": axes.transAxes, "color": style["color"], "fontsize": 7, "verticalalignment": "top"}
            axes.text(0.03, 0.97 - 0.09 * n_labels, f"◯ {overtaken.size_bytes:.0f} B", **label)
            n_labels += 1
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(_TICKS))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: f"{size:g}"))
    axes.tick_params(labelsize=7, length=2, color="#888888")
    axes.grid(color="#dddddd", linewidth=0.6)
    for side in axes.spines.values():
        side.set_color("#bbbbbb")


def save_figure(figure: Figure, path: Path) -> None:
    """Writes the PNG. Raises MediaError when the file cannot be written."""
    try:
        figure.savefig(path, format="png", dpi=130)
    except OSError as error:
        raise MediaError(f"{path}: {error.strerror or error}") from error


def write_plot(evaluation: Evaluation, path: Path) -> None:
    """One panel per metric; one line per codec, files of other kinds as points.

    Raises UsageError without matplotlib or without sizes, MediaError when the file cannot be written.
    """
    series = {measure.key: _series(evaluation, measure.key) for measure in evaluation.measures}
    if not any(series.values()):
        raise UsageError("nothing to plot: no file with a known size")
    figure, (panels,) = new_figure(1, len(evaluation.measures), (4.2, 3.6))
    for measure, axes in zip(evaluation.measures, panels, strict=True):
        curves = series[measure.key]
        ours = [name for name in curves if name == "vovcodec"]
        draw_curves(axes, curves, ours=ours, higher_is_better=measure.higher_is_better)
        axes.set_xlabel("bytes", fontsize=8)
        axes.set_title(f"{measure.title}{'' if measure.higher_is_better else ' (lower is better)'}", fontsize=10)
    panels[0].legend(fontsize=8, frameon=False)
    width, height = evaluation.size
    figure.suptitle(f"{Path(evaluation.reference).name}: {evaluation.n_frames} frames of {width}x{height}", fontsize=11)
    save_figure(figure, path)


def _series(evaluation: Evaluation, key: str) -> dict[str, Points]:
    """Finite values of rows with a size by codec, fewest bytes first."""
    series: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in evaluation.rows:
        if row.size_bytes is not None and math.isfinite(row.values[key]):
            name = "vovcodec" if row.codec == "vov" else Path(row.name).name
            series[name].append((row.size_bytes, row.values[key]))
    return {name: sorted(points) for name, points in series.items()}
