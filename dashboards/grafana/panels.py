"""The kinds of panels, built with grafana-foundation-sdk.

Rounds are a second apart in the database, so every panel queries steps of a second where the range allows it. A trend
has the round as its x axis and overlays runs; a series has a time axis, which can show annotations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from grafana_foundation_sdk.builders import common, heatmap, stat, statetimeline, timeseries, trend
from grafana_foundation_sdk.builders import dashboard as board
from grafana_foundation_sdk.models import common as shared
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from dashboards.grafana.parts import P, Query, dressed, legend, letters, query, step, styled
from dashboards.grafana.promql import round_number

Scale = Literal["linear", "log"]


@dataclass(frozen=True)
class Band:
    """Two series with the area between them filled."""

    upper: str
    lower: str


def trend_panel(
    title: str, why: str, queries: Sequence[Query], *, x: str, unit: str = "none", width: int = 12, height: int = 9,
    scale: Scale = "linear", bands: Sequence[Band] = (), right: Mapping[str, str] | None = None,
    points: Sequence[str] = (), low: float | None = None, high: float | None = None,
) -> trend.Panel:  # fmt: skip
    """Draw series over the number of the round.

    Args:
        title: a few words.
        why: its description.
        queries: queries, one series per run or label.
        x: a selector with a value in every round that is drawn.
        unit: Grafana's id of the unit.
        width: of 24.
        height: in rows of 30 pixels.
        scale: of the y axis.
        bands: pairs of legends to fill between.
        right: legend -> unit of series on an axis at the right.
        points: legends drawn as points alone.
        low: least y.
        high: greatest y.
    """
    panel = _lines(dressed(trend.Panel(), title, why, unit, width, height), scale, low, high)
    panel = panel.with_target(query(Query(round_number(x), "round"), "round")).x_field("round")
    panel = panel.with_transformation(step("joinByField", byField="Time", mode="outer"))
    return _series_styles(_with_queries(panel, queries), bands, right or {}, points)


def series_panel(
    title: str, why: str, queries: Sequence[Query], *, unit: str = "none", width: int = 12, height: int = 9,
    scale: Scale = "linear", bands: Sequence[Band] = (), right: Mapping[str, str] | None = None,
    stacked: bool = False, low: float | None = None, high: float | None = None,
) -> timeseries.Panel:  # fmt: skip
    """Draw series over time, with annotations; on the round clock a second is a round."""
    panel = _lines(dressed(timeseries.Panel(), title, why, unit, width, height), scale, low, high)
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(shared.StackingMode.NORMAL)).fill_opacity(60)
    return _series_styles(_with_queries(panel, queries), bands, right or {}, ())


def heat_panel(
    title: str, why: str, source: Query, *, unit: str = "none", width: int = 12, height: int = 9
) -> heatmap.Panel:
    """Draw the number of clients in each bucket of a histogram, by round.

    Args:
        title: a few words.
        why: its description.
        source: cumulative buckets with the label `le`, of one run.
        unit: of the buckets' edges.
        width: of 24.
        height: in rows of 30 pixels.
    """
    colour = heatmap.HeatmapColorOptions().scheme("Turbo").steps(64)
    panel = dressed(heatmap.Panel(), title, why, unit, width, height).color(colour)
    panel = panel.y_axis(heatmap.YAxisConfig().unit(unit)).cell_values(heatmap.CellValues().unit("clients"))
    return panel.with_target(query(source, "A").format(PromQueryFormat.HEATMAP))


def states_panel(
    title: str, why: str, source: Query, states: Mapping[int, tuple[str, str]], *, width: int = 24, height: int = 7
) -> statetimeline.Panel:
    """Draw one row per series, coloured by its value.

    Args:
        title: a few words.
        why: its description.
        source: numbers among `states`.
        states: number -> words and colour.
        width: of 24.
        height: in rows of 30 pixels.
    """
    panel = dressed(statetimeline.Panel(), title, why, "none", width, height)
    panel = panel.mappings([words_for(states)]).show_value(shared.VisibilityMode.NEVER).merge_values(True)
    return panel.row_height(0.8).fill_opacity(80).legend(legend()).with_target(query(source, "A"))


def tiles_panel(
    title: str, why: str, source: Query, *, unit: str = "none", width: int = 12, height: int = 9,
    low: float | None = None,
    high: float | None = None,
) -> statetimeline.Panel:  # fmt: skip
    """Draw one row per series and one tile per round, coloured by its value; blank where there is none.

    Args:
        title: a few words.
        why: its description.
        source: numbers.
        unit: of them.
        width: of 24.
        height: in rows of 30 pixels.
        low: value of the first colour; by default the smallest.
        high: value of the last colour; by default the largest.
    """
    panel = dressed(statetimeline.Panel(), title, why, unit, width, height)
    panel = panel.color_scheme(board.FieldColor().mode(model.FieldColorModeId.CONTINUOUS_BL_YL_RD))
    panel = panel.show_value(shared.VisibilityMode.NEVER).merge_values(False).row_height(0.95).fill_opacity(85)
    panel = panel if low is None else panel.min(low)
    panel = panel if high is None else panel.max(high)
    quiet = common.VizLegendOptions().show_legend(False).display_mode(shared.LegendDisplayMode.LIST)
    return panel.line_width(0).legend(quiet).with_target(query(source, "A"))


def number_panel(
    title: str, why: str, source: Query, *, unit: str = "none", width: int = 4, height: int = 4,
    decimals: int | None = None,
    states: Mapping[int, tuple[str, str]] | None = None,
) -> stat.Panel:  # fmt: skip
    """Show the last value of one series, large."""
    newest = common.ReduceDataOptions().calcs(["lastNotNull"])
    panel = dressed(stat.Panel(), title, why, unit, width, height).reduce_options(newest)
    panel = panel.graph_mode(shared.BigValueGraphMode.NONE)
    if decimals is not None:
        panel = panel.decimals(decimals)
    if states:
        panel = panel.mappings([words_for(states)])
    return panel.with_target(query(source, "A"))


def words_for(states: Mapping[int, tuple[str, str]]) -> model.ValueMap:
    """Show words and a colour in place of numbers."""
    return model.ValueMap(
        {str(number): model.ValueMappingResult(text=text, color=colour, index=i)
         for i, (number, (text, colour)) in enumerate(states.items())}
    )  # fmt: skip


def _lines(panel: P, scale: Scale, low: float | None, high: float | None) -> P:
    """Set the common style of line panels; lines bridge rounds that did not measure."""
    x: Any = panel
    x = x.legend(legend()).line_width(1.5).show_points(shared.VisibilityMode.AUTO).point_size(4).span_nulls(True)
    x = x.tooltip(common.VizTooltipOptions().mode(shared.TooltipDisplayMode.MULTI).sort(shared.SortOrder.DESCENDING))
    x = x.color_scheme(board.FieldColor().mode(model.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
    if scale == "log":
        x = x.scale_distribution(common.ScaleDistributionConfig().type(shared.ScaleDistribution.LOG).log(10))
    x = x if low is None else x.min(low)
    lined: P = x if high is None else x.max(high)
    return lined


def _series_styles(panel: P, bands: Sequence[Band], right: Mapping[str, str], points: Sequence[str]) -> P:
    """Fill bands, and give some series their own axis or style."""
    x: Any = panel
    for band in bands:
        x = x.override_by_name(band.upper, [styled("custom.fillBelowTo", band.lower)])
    for name, unit in right.items():
        style = [styled("custom.axisPlacement", "right"), styled("unit", unit)]
        x = x.override_by_regexp(name, style)
    for name in points:
        style = [styled("custom.drawStyle", "points"), styled("custom.pointSize", 10)]
        x = x.override_by_regexp(name, style)
    result: P = x
    return result


def _with_queries(panel: P, queries: Sequence[Query]) -> P:
    x: Any = panel
    for ref, source in zip(letters(), queries, strict=False):
        x = x.with_target(query(source, ref))
    panel_with: P = x
    return panel_with
