"""Rate–distortion plots as PNG. matplotlib is an extra: `pip install vovcodec[plot]`."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path

from vovcodec.errors import MediaError, UsageError
from vovcodec.evaluation.evaluate import Evaluation, Row

__all__ = ["require_matplotlib", "write_plot"]

_PANEL_INCHES = (4.2, 3.6)


def require_matplotlib() -> None:
    """Raises UsageError that says how to install it when matplotlib is absent."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UsageError("plots need matplotlib: pip install 'vovcodec[plot]'") from error


def write_plot(evaluation: Evaluation, path: Path) -> None:
    """One panel per metric over the bytes (logarithmic); one line per codec, files of other kinds as points.

    Raises UsageError without matplotlib or without sizes, MediaError when the file cannot be written.
    """
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    series = _series(evaluation)
    if not series:
        raise UsageError("nothing to plot: no file with a known size")
    n_panels = len(evaluation.measures)
    figure = Figure(figsize=(_PANEL_INCHES[0] * n_panels, _PANEL_INCHES[1]), layout="constrained")
    FigureCanvasAgg(figure)
    for measure, axes in zip(evaluation.measures, figure.subplots(1, n_panels, squeeze=False)[0], strict=True):
        for name, rows in series.items():
            values = [row.values[measure.key] for row in rows]
            points = [(row.size_bytes, value) for row, value in zip(rows, values, strict=True) if math.isfinite(value)]
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", markersize=4, linewidth=1.4, label=name)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("bytes")
        axes.set_title(f"{measure.title}{'' if measure.higher_is_better else ' (lower is better)'}", fontsize=10)
        axes.grid(alpha=0.3, linewidth=0.6)
    figure.axes[0].legend(fontsize=8)
    width, height = evaluation.size
    figure.suptitle(f"{Path(evaluation.reference).name}: {evaluation.n_frames} frames of {width}x{height}", fontsize=11)
    try:
        figure.savefig(path, format="png", dpi=130)
    except OSError as error:
        raise MediaError(f"{path}: {error.strerror or error}") from error


def _series(evaluation: Evaluation) -> dict[str, list[Row]]:
    """Rows with a size by codec, fewest bytes first."""
    series: dict[str, list[Row]] = defaultdict(list)
    for row in evaluation.rows:
        if row.size_bytes is not None:
            series["vovcodec" if row.codec == "vov" else Path(row.name).name].append(row)
    return {name: sorted(rows, key=lambda row: row.size_bytes) for name, rows in series.items()}
