"""The picture of the clients' data: data.png, drawn by matplotlib without a display and without its global state."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dashboards.data_page.view import MOST_NAMED

INK, SOFT, LINE, FAINT, PAGE = "#1c2330", "#5d6675", "#e3e1db", "#efede8", "#ffffff"
SERIES = ("#2b62d9", "#d9730d", "#16936a", "#bb3c86", "#7557c9", "#0b93a8", "#8f6b3d", "#6b7280")
SCALE = ("#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725")
LABEL_DISTANCES = {
    "label_emd": "EMD, of 2",
    "label_js": "Jensen-Shannon, bits of 1",
    "label_hellinger": "Hellinger, of 1",
}
"""What a curve of each label measure is called."""
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.edgecolor": LINE,
    "axes.labelcolor": SOFT,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "text.color": INK,
    "legend.frameon": False,
    "text.parse_math": False,
}
MOST_NAMES, LONGEST_NAME = 24, 22
_WIDE, _TALL = 4.1, 3.1  # inches of a panel

Draw = Callable[[Any, Any, dict[str, Any]], None]


def data_figure(view: dict[str, Any]) -> bytes:
    """Return the picture of a view of `dashboards.data_page.view`, as PNG.

    The same view gives the same bytes with the same matplotlib.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    panels = _panels(view)
    columns = min(3, len(panels)) if len(panels) != 4 else 2
    down = -(-len(panels) // columns)
    width = max(_WIDE * columns, 7.0)
    lines = textwrap.wrap(view["sentence"] + _sampled(view), int(width * 13.5))
    head = 0.65 + 0.2 * len(lines)
    height = _TALL * down + head
    with matplotlib.rc_context(STYLE):
        layout = ConstrainedLayoutEngine(rect=(0.01, 0.01, 0.98, 1 - head / height - 0.01), wspace=0.06, hspace=0.08)
        figure = Figure(figsize=(width, height), dpi=160, facecolor=PAGE, layout=layout)
        FigureCanvasAgg(figure)
        size = min(13.0, 105 * width / max(1, len(view["title"])))
        figure.text(0.16 / width, 1 - 0.24 / height, view["title"], size=size, weight="bold", va="center")
        figure.text(0.16 / width, 1 - 0.44 / height, "\n".join(lines), size=9.5, color=SOFT, va="top", linespacing=1.4)
        for index, (title, draw) in enumerate(panels):
            axes = figure.add_subplot(down, columns, index + 1)
            axes.set_title(title, pad=8)
            draw(figure, axes, view)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _sampled(view: dict[str, Any]) -> str:
    """Return the size of the sample of clients, where it is not all of them."""
    return f" Charts by client show a sample of {view['looked_at']:,}." if view["looked_at"] < view["clients"] else ""


def _panels(view: dict[str, Any]) -> list[tuple[str, Draw]]:
    """Return the title of each panel that has data, and the function that draws it."""
    found: list[tuple[str, Draw]] = [("Examples per client", _sizes)]
    if view["label_counts"]:
        found.append(("Labels per client", _labels))
    if any(name in LABEL_DISTANCES for name in view["curves"]):
        found.append(("Label distance from all clients", _label_curves))
    if "feature_shift" in view["curves"]:
        found.append(("Feature shift", _feature_curve))
    if view["faults"]:
        found.append(("Changed by faults", _faults))
    if view.get("series"):
        found.append((f"Readings of {_with_gaps(view)['name']}", _series))
    if view["map"]:
        found.append((f"Sites: {view['map']['labels'][_coloured_by(view)]}", _sites))
    return found


def _coloured_by(view: dict[str, Any]) -> str:
    """Return the quantity that colours the map: the fault that differs most, else feature shift, else size."""
    values: dict[str, list[float | None]] = view["map"]["values"]
    faults: list[str] = view["map"]["faults"]
    spread = {name: float(np.nanstd(_array(values[name]))) for name in faults}
    if spread and max(spread.values()) > 0:
        return max(spread, key=lambda name: spread[name])
    return "feature_shift" if "feature_shift" in values else "size"


def _array(values: list[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _ramp(first: str | None = None) -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("fedscape", SCALE if first is None else (FAINT, first))


def _sizes(figure: Any, axes: Any, view: dict[str, Any]) -> None:
    if view["clients"] <= MOST_NAMED and len(view["names"]) == view["clients"]:
        _named_bars(axes, view["names"], view["sizes"], "training examples")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        return
    edges, counts = np.array(view["histogram"]["edges"], np.float64), view["histogram"]["counts"]
    if (np.diff(edges) == 1).all():  # one bar per size
        axes.bar(edges[:-1], counts, 0.86, color=SERIES[0])
        wide = max(edges[-1] - edges[0], 9.0) / 2
        axes.set_xlim((edges[0] + edges[-1] - 1) / 2 - wide, (edges[0] + edges[-1] - 1) / 2 + wide)
        axes.xaxis.get_major_locator().set_params(integer=True)
    else:
        axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=SERIES[0], edgecolor=PAGE, linewidth=0.4)
        axes.margins(x=0.02)
    if view["histogram"]["log"]:
        axes.set_xscale("symlog", linthresh=1)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel("training examples")
    axes.set_ylabel("clients")
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    _grid(axes)


def _named_bars(axes: Any, names: Sequence[str], values: Sequence[float], quantity: str) -> None:
    """Draw a bar for each client, the largest at the top."""
    order = sorted(range(len(names)), key=values.__getitem__)
    short = [names[k] if len(names[k]) <= LONGEST_NAME else names[k][: LONGEST_NAME - 1] + "…" for k in order]
    axes.barh(range(len(order)), [values[k] for k in order], 0.78, color=SERIES[0])
    axes.set_yticks(range(len(order)), short, fontsize=8 if len(order) <= 16 else 5)
    axes.xaxis.get_major_locator().set_params(nbins=5)
    axes.set_xlabel(quantity)
    axes.set_ylabel("client")
    _grid(axes, "x")


def _grid(axes: Any, axis: str = "y") -> None:
    axes.grid(axis=axis, color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)


def _labels(figure: Any, axes: Any, view: dict[str, Any]) -> None:
    counts = np.array(view["label_counts"], np.float64)
    total = np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
    part = counts / total
    order = np.lexsort((-part.max(axis=1), part.argmax(axis=1)))
    image = axes.imshow(part[order].T, aspect="auto", cmap=_ramp(SERIES[0]), vmin=0, interpolation="nearest")
    _cells(figure, axes, image, "share of the client's examples")
    axes.set_xlabel(f"{_shown(view)}, by main label")
    axes.set_ylabel("label")
    classes = part.shape[1]
    axes.set_yticks(range(0, classes, -(-classes // 16)))


def _shown(view: dict[str, Any]) -> str:
    few = len(view["names"])
    return f"{few:,} of {view['clients']:,} clients" if few < view["clients"] else f"{few:,} clients"


def _cells(figure: Any, axes: Any, image: Any, what: str) -> None:
    axes.set_xticks([])
    for side in axes.spines.values():
        side.set_visible(False)
    bar = figure.colorbar(image, ax=axes, fraction=0.045, pad=0.03)
    bar.outline.set_visible(False)
    bar.set_label(what, color=SOFT, size=8)
    bar.ax.tick_params(labelsize=8)


def _curve(axes: Any, values: list[float | None], ink: str, name: str | None) -> None:
    axes.plot(np.linspace(0, 100, len(values)), _array(values), color=ink, linewidth=1.8, label=name)
    axes.set_xlabel("clients, % (largest first)")
    axes.margins(x=0.02)
    _grid(axes)


def _label_curves(figure: Any, axes: Any, view: dict[str, Any]) -> None:
    for index, (name, one) in enumerate((n, c) for n, c in view["curves"].items() if n in LABEL_DISTANCES):
        _curve(axes, one["values"], SERIES[index], LABEL_DISTANCES[name])
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8, handlelength=1.2, labelcolor=SOFT)


def _feature_curve(figure: Any, axes: Any, view: dict[str, Any]) -> None:
    shift = view["curves"]["feature_shift"]
    label = "energy distance from all clients"
    if np.nanmin(_array(shift["values"])) < 0:  # an unbiased estimate of 0 is below it about half of the time
        label += "\n(below 0: noise around no shift)"
    if shift["names"]:
        _named_bars(axes, shift["names"], shift["values"], label)
        return
    _curve(axes, shift["values"], SERIES[0], None)
    axes.axhline(0, color=SOFT, linewidth=0.8, linestyle="dashed")
    axes.set_ylabel(label)


def _faults(figure: Any, axes: Any, view: dict[str, Any]) -> None:
    part = np.stack([_array(values) for values in view["faults"].values()])
    order = np.argsort(-np.nansum(part, axis=0), kind="stable")
    image = axes.imshow(part[:, order], aspect="auto", cmap=_ramp(SERIES[1]), vmin=0, interpolation="nearest")
    _cells(figure, axes, image, "share changed")
    axes.set_yticks(range(len(part)), list(view["faults"]))
    axes.set_xlabel(f"{_shown(view)}, most changed first")


def _with_gaps(view: dict[str, Any]) -> dict[str, Any]:
    """Return the drawn series with the most missing readings, the first where none has gaps."""
    found: dict[str, Any] = max(view["series"]["clients"], key=lambda one: sum(one["missing"]))
    return found


def _series(figure: Any, axes: Any, view: dict[str, Any]) -> None:
    one = _with_gaps(view)
    x, low, high = np.array(one["x"]) / (24 if one["clocked"] else 1), _array(one["low"]), _array(one["high"])
    axes.plot(np.repeat(x, 2), np.stack((low, high), 1).reshape(-1), color=SERIES[0], linewidth=0.6)
    gaps = np.array(one["missing"]) > 0
    if gaps.any():
        rug = {"color": SERIES[1], "transform": axes.get_xaxis_transform(), "clip_on": False}
        axes.plot(x[gaps], np.zeros(gaps.sum()), "|", **rug)
    for end, name in zip(one["ends"], ("validation", "test"), strict=True):
        at = end / (24 if one["clocked"] else 1)
        axes.axvline(at, color=SOFT, linewidth=0.8, linestyle="dashed")
        label = axes.annotate(name, (at, 1.0), xycoords=("data", "axes fraction"), xytext=(2, -2), color=SOFT,
                              textcoords="offset points", rotation=90, va="top", fontsize=7)  # fmt: skip
        label.set_in_layout(False)  # its place is unknown before the axis is scaled, and it needs no room of its own
    axes.set_xlabel("days" if one["clocked"] else "step")
    axes.set_ylabel(one["quantity"])
    axes.margins(x=0.01)


def _sites(figure: Any, axes: Any, view: dict[str, Any]) -> None:
    sites, by = view["map"], _coloured_by(view)
    x, y, values = _array(sites["x"]), _array(sites["y"]), _array(sites["values"][by])
    size = float(np.clip(9000 / max(1, len(x)), 5, 40))
    axes.scatter(x[np.isnan(values)], y[np.isnan(values)], s=size, color=FAINT, linewidths=0)
    known = ~np.isnan(values)
    order = np.argsort(values[known], kind="stable")
    dots = axes.scatter(x[known][order], y[known][order], c=values[known][order], s=size, cmap=_ramp(), linewidths=0)
    _districts(axes, sites, x, y)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_xlabel("km")
    axes.set_ylabel("km")
    bar = figure.colorbar(dots, ax=axes, fraction=0.045, pad=0.03)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8)


def _districts(axes: Any, sites: dict[str, Any], x: np.ndarray, y: np.ndarray) -> None:
    """Write the name of each district in the middle of its sites."""
    from matplotlib.patheffects import withStroke

    where = np.array(sites["district"])
    if len(sites["districts"]) > MOST_NAMES:
        return
    for district in np.unique(where):
        name = sites["districts"][district] if district < len(sites["districts"]) else ""
        axes.text(x[where == district].mean(), y[where == district].mean(), name, size=7.5, weight="bold", ha="center",
                  va="center", path_effects=[withStroke(linewidth=2.2, foreground=PAGE)])  # fmt: skip
