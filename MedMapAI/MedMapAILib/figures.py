"""Curves of an evaluation as PNG, where there is no Slicer to plot them: matplotlib, without pyplot and its state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InputError
from .files import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Colors that the color-blind can tell apart (Okabe, Ito, "Color Universal Design", 2008), without the yellow, which is
#: too light for a line. Further curves take them again in another line style.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STYLES = ("-", "--", ":", "-.")
_DOTS_PER_INCH = 150
#: Curves with a legend inside the axes; more get it beside them.
_INSIDE = 4
_CALLED = "operating point"
#: False positives per scan at which LUNA16 reads the sensitivity.
_RATES = (0.125, 0.25, 0.5, 1, 2, 4, 8)


def draw_curves(report: Mapping[str, Any], folder: str | Path, *, title: str = "") -> list[Path]:
    """Write roc.png, froc.png, precision-recall.png, reliability.png and confusion-matrix.png, as far as the report has
    what they show; returns what it wrote.

    report: of ``metrics.classification_report`` or ``metrics.detection.detection_report``. folder: is made where it is
    missing. title: above each figure, such as the model and the data it was evaluated on. Legends hold the metric and
    its 95 % interval; a dot is the operating point. A figure of nothing (a class is absent) is left out.
    Raises InputError when matplotlib is not installed or the folder cannot be written to.
    """
    folder = Path(folder)
    drawings: dict[str, Callable[[], Figure | None]] = {
        "roc.png": lambda: _roc(report),
        "froc.png": lambda: _froc(report),
        "precision-recall.png": lambda: _precision_recall(report),
        "reliability.png": lambda: _reliability(report),
        "confusion-matrix.png": lambda: _confusion(report),
    }
    _check_matplotlib()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"The folder {folder} cannot be made ({error.strerror}); choose another.") from None
    written = []
    for name, draw in drawings.items():
        figure = draw()
        if figure is None:
            continue
        _save(figure, folder / name, title)
        written.append(folder / name)
    return written


def draw_froc(report: Mapping[str, Any], path: str | Path, *, title: str = "") -> None:
    """Write the FROC curve of ``metrics.froc.froc`` or ``metrics.detection.detection_report`` as one PNG.

    Raises InputError when matplotlib is not installed, or the file cannot be written.
    """
    _check_matplotlib()
    figure = _froc(report)
    if figure is None:
        raise InputError("There is no FROC curve to draw: no scan holds a finding.")
    _save(figure, Path(path), title)


def draw_residuals(curves: Mapping[str, Sequence[float]], path: str | Path, *, title: str = "") -> None:
    """Write the residuals |A x - y| / |y| of iterative reconstructions, name → one for each iteration, as one PNG.

    Raises InputError when matplotlib is not installed, there is nothing to draw, or the file cannot be written.
    """
    _check_matplotlib()
    if not any(len(values) for values in curves.values()):
        raise InputError("There are no residuals to draw: the method does not iterate.")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.8, 4.2))
    axes = figure.add_subplot()
    for name, values, look in _styled(curves):
        axes.plot(range(1, len(values) + 1), values, label=name, **look)
    axes.set(xlabel="Iteration", ylabel="|A x − y| / |y|", yscale="log")
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    _legend(axes, {name: {} for name in curves}, "upper right")
    _save(figure, Path(path), title)


def _check_matplotlib() -> None:
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise InputError("Figures need matplotlib, which is not installed; run pip install matplotlib.") from None


def _save(figure: Figure, path: Path, title: str) -> None:
    axes = figure.axes[0]
    axes.set_title("\n".join(filter(None, (title, axes.get_title()))), fontsize=10)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=_DOTS_PER_INCH, bbox_inches="tight")


def _roc(report: Mapping[str, Any]) -> Figure | None:
    curves = report["curves"].get("roc")
    if not curves:
        return None
    figure, axes = _square("1 − specificity (false positive rate)", "Sensitivity (true positive rate)")
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, zorder=1)
    for name, points, look in _styled(curves):
        label = _labeled(report, name, "auc", "AUC")
        axes.plot(points["false_positive_rate"], points["true_positive_rate"], label=label, **look)
        _dot(axes, points, look)
    _legend(axes, curves, "lower right")
    return figure


def _froc(report: Mapping[str, Any]) -> Figure | None:
    from matplotlib.figure import Figure

    curves = {name: _within_rates(points) for name, points in report["curves"].get("froc", {}).items()}
    if not curves:
        return None
    figure = Figure(figsize=(5.8, 5.0))
    axes = figure.add_subplot()
    # LUNA16's seven rates are the ticks.
    axes.set_xscale("log", base=2)
    axes.set_xticks(_RATES, [f"{rate:g}" if rate >= 1 else f"1/{1 / rate:g}" for rate in _RATES])
    axes.set(xlim=(_RATES[0], _RATES[-1]), ylim=(0, 1.005))
    axes.set(xlabel="False positives per scan (mean)", ylabel="Sensitivity")
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for name, points, look in _styled(curves):
        x, y = points["false_positives_per_scan"], points["sensitivity"]
        # Beyond its last false positive a curve stays as high as it is.
        axes.plot([*x, 2 * _RATES[-1]], [*y, y[-1]], label=_labeled(report, name, "froc", "score"), **look)
        if "band" in points:
            band = points["band"]
            axes.fill_between(band["rate"], band["low"], band["high"], color=look["color"], alpha=0.15, linewidth=0)
        _dot(axes, points, look)
    _legend(axes, curves, "lower right")
    return figure


def _within_rates(points: Mapping[str, Any]) -> dict[str, Any]:
    """The points without an operating point that lies off the axes, so that the legend does not name it."""
    shown = "operating_point" in points and _RATES[0] <= points["operating_point"][0] <= _RATES[-1]
    return {name: values for name, values in points.items() if shown or name != "operating_point"}


def _precision_recall(report: Mapping[str, Any]) -> Figure | None:
    curves = report["curves"].get("precision_recall")
    if not curves:
        return None
    figure, axes = _square("Recall (sensitivity)", "Precision (positive predictive value)")
    for name, points, look in _styled(curves):
        label = _labeled(report, name, "average_precision", "AP")
        if "froc" in report["curves"]:
            # Hits of a detector are of its centers, and average precision is of its boxes: another curve.
            label = _labeled(report, name, "f1", "F1")
        # Between two points precision is what the next one reaches, as average precision counts it.
        axes.plot(points["recall"], points["precision"], drawstyle="steps-pre", label=label, **look)
        _dot(axes, points, look)
    _legend(axes, curves, "lower left")
    return figure


def _reliability(report: Mapping[str, Any]) -> Figure | None:
    curves = report["curves"].get("reliability")
    if not curves:
        return None
    few = len(curves) <= _INSIDE
    figure, axes = _square("Predicted probability", "Share that came true")
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, zorder=1)
    for name, points, look in _styled(curves):
        x, y = np.array(points["confidence"]), np.array(points["frequency"])
        if few:
            # How much a point is worth: with many curves the bars hide each other.
            error = np.abs(np.array([points["low"], points["high"]]) - y)
            axes.errorbar(x, y, error, fmt="none", ecolor=look["color"], elinewidth=0.8, capsize=2, alpha=0.6)
        axes.plot(x, y, marker="o", markersize=4, label=name, **look)
    _legend(axes, curves, "upper left")
    error = report["summary"].get("ece")
    if error:
        axes.set_title(f"Expected calibration error {_interval(error)}")
    return figure


def _confusion(report: Mapping[str, Any]) -> Figure | None:
    confusion = report.get("confusion")
    if not confusion:
        return None
    if report["kind"] == "multi-label":
        # One row a label: its four cells side by side.
        columns = ["not true,\nnot called", "not true,\ncalled", "true,\nnot called", "true,\ncalled"]
        tables = {key: [sum(cells, []) for cells in confusion[key]] for key in ("counts", "share", "low", "high")}
        return _table(tables, confusion["classes"], columns, "", "Label", "Share of the label's true or not true cases")
    names = confusion["classes"]
    return _table(confusion, names, names, "Called", "True", "Share of the true class's cases")


def _table(
    tables: Mapping[str, Any], rows: list[str], columns: list[str], across: str, down: str, shown: str
) -> Figure:
    """A matrix of shares with counts and intervals written in its cells."""
    from matplotlib.figure import Figure

    share = np.array(tables["share"], dtype=np.float64)
    height, width = share.shape
    detailed = width <= 6
    cell = (1.1, 0.75) if detailed else (0.55, 0.45)
    figure = Figure(figsize=(1.5 + 1.3 * cell[0] * width, 1.0 + 1.25 * cell[1] * height))
    axes = figure.add_subplot()
    image = axes.imshow(np.nan_to_num(share), cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for i in range(height):
        for j in range(width):
            text = f"{tables['counts'][i][j]}"
            if detailed and not np.isnan(share[i, j]):
                text += f"\n{share[i, j]:.2f} ({tables['low'][i][j]:.2f}–{tables['high'][i][j]:.2f})"
            color = "black" if share[i, j] > 0.55 else "white"
            axes.text(j, i, text, ha="center", va="center", fontsize=8 if detailed else 7, color=color)
    tilted = not detailed or max(len(line) for name in columns for line in name.split("\n")) > 14
    axes.set_xticks(range(width), columns, rotation=45 if tilted else 0, ha="right" if tilted else "center", fontsize=8)
    axes.set_yticks(range(height), rows, fontsize=8)
    axes.set_xlabel(across)
    axes.set_ylabel(down)
    bar = figure.colorbar(image, ax=axes)
    bar.set_label(shown, fontsize=8)
    bar.ax.tick_params(labelsize=8)
    return figure


def _square(across: str, up: str) -> tuple[Figure, Axes]:
    """Axes from 0 to 1 both ways."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.8, 5.8))
    axes = figure.add_subplot()
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=across, ylabel=up, aspect="equal")
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _styled(curves: Mapping[str, dict]) -> Iterator[tuple[str, dict, dict[str, Any]]]:
    for number, (name, points) in enumerate(curves.items()):
        style = _STYLES[number // len(COLORS) % len(_STYLES)]
        yield name, points, {"color": COLORS[number % len(COLORS)], "linestyle": style, "linewidth": 1.5}


def _legend(axes: Axes, curves: Mapping[str, dict], place: str) -> None:
    if any("operating_point" in points for points in curves.values()):
        axes.plot([], [], marker="o", markersize=7, markerfacecolor="white", color="0.3", linestyle="", label=_CALLED)
    if len(curves) <= _INSIDE:
        axes.legend(loc=place, fontsize=8, framealpha=0.9)
    else:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False)


def _dot(axes: Axes, points: Mapping[str, Any], look: Mapping[str, Any]) -> None:
    """The operating point."""
    if "operating_point" in points:
        x, y = points["operating_point"]
        axes.plot([x], [y], marker="o", markersize=7, markerfacecolor="white", color=look["color"], zorder=5)


def _labeled(report: Mapping[str, Any], name: str, metric: str, short: str) -> str:
    value = report["summary"].get(f"{name}: {metric}")
    if value is None and len(report.get("classes", (name,))) == 1:
        value = report["summary"].get(metric)
    return f"{name}: {short} {_interval(value)}" if value else name


def _interval(value: Mapping[str, float]) -> str:
    return f"{value['mean']:.3f} ({value['low']:.3f}–{value['high']:.3f})"
