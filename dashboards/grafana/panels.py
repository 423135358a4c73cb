"""The kinds of panels the dashboards are made of, over grafana-foundation-sdk: what they share is decided here.

Rounds lie a second apart in the database, so every panel asks for steps of a second while the range allows it. A
`trend` has the round as its x axis and overlays runs; a `series` has the same on a time axis, where annotations show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from grafana_foundation_sdk.builders import (
    common,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
    trend,
    xychart,
)
from grafana_foundation_sdk.builders import dashboard as board
from grafana_foundation_sdk.models import common as shared
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from grafana_foundation_sdk.models.xychart import XYShowMode

from dashboards.grafana.promql import round_number

SOURCE = shared.DataSourceRef(type_val="prometheus", uid="${datasource}")
MOST_POINTS = 10_000
"""Points a panel asks for; Prometheus refuses more than 11,000 a series."""

Scale = Literal["linear", "log"]
P = TypeVar("P")


@dataclass(frozen=True)
class Ask:
    """One query.

    Attributes:
        expr: PromQL.
        legend: what a series is called, with labels in double braces; a column's heading, empty for none.
        unit: of this column alone, in a table.
        decimals: likewise.
    """

    expr: str
    legend: str = "{{run_id}}"
    unit: str = ""
    decimals: int | None = None


@dataclass(frozen=True)
class Band:
    """Two series, and the space between them filled."""

    upper: str
    lower: str


def trend_panel(
    title: str, why: str, asks: Sequence[Ask], *, x: str, unit: str = "none", width: int = 12, height: int = 9,
    scale: Scale = "linear", bands: Sequence[Band] = (), right: Mapping[str, str] | None = None,
    points: Sequence[str] = (), low: float | None = None, high: float | None = None,
) -> trend.Panel:  # fmt: skip
    """Draw series over the number of the round.

    Args:
        title: a few words.
        why: what is seen, and how to read it.
        asks: queries, one series a run or a label.
        x: a selector that has a value in every round that is to be drawn.
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
    panel = _lines(_dressed(trend.Panel(), title, why, unit, width, height), scale, low, high)
    panel = panel.with_target(_query(Ask(round_number(x), "round"), "round")).x_field("round")
    panel = panel.with_transformation(_step("joinByField", byField="Time", mode="outer"))
    return _series_styles(_asked(panel, asks), bands, right or {}, points)


def series_panel(
    title: str, why: str, asks: Sequence[Ask], *, unit: str = "none", width: int = 12, height: int = 9,
    scale: Scale = "linear", bands: Sequence[Band] = (), right: Mapping[str, str] | None = None,
    stacked: bool = False, low: float | None = None, high: float | None = None,
) -> timeseries.Panel:  # fmt: skip
    """Draw series over time, with annotations; on the round clock a second is a round."""
    panel = _lines(_dressed(timeseries.Panel(), title, why, unit, width, height), scale, low, high)
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(shared.StackingMode.NORMAL)).fill_opacity(60)
    return _series_styles(_asked(panel, asks), bands, right or {}, ())


def heat_panel(
    title: str, why: str, ask: Ask, *, unit: str = "none", width: int = 12, height: int = 9
) -> heatmap.Panel:
    """Draw how many clients lie in each bucket of a histogram, round by round.

    Args:
        title: a few words.
        why: what is seen.
        ask: cumulative buckets with the label `le`, of one run.
        unit: of the buckets' edges.
        width: of 24.
        height: in rows of 30 pixels.
    """
    colour = heatmap.HeatmapColorOptions().scheme("Turbo").steps(64)
    panel = _dressed(heatmap.Panel(), title, why, unit, width, height).color(colour)
    panel = panel.y_axis(heatmap.YAxisConfig().unit(unit)).cell_values(heatmap.CellValues().unit("clients"))
    return panel.with_target(_query(ask, "A").format(PromQueryFormat.HEATMAP))


def states_panel(
    title: str, why: str, ask: Ask, states: Mapping[int, tuple[str, str]], *, width: int = 24, height: int = 7
) -> statetimeline.Panel:
    """Draw a row a series that changes colour with its value.

    Args:
        title: a few words.
        why: what is seen.
        ask: numbers among `states`.
        states: number -> words and colour.
        width: of 24.
        height: in rows of 30 pixels.
    """
    panel = _dressed(statetimeline.Panel(), title, why, "none", width, height)
    panel = panel.mappings([words_for(states)]).show_value(shared.VisibilityMode.NEVER).merge_values(True)
    return panel.row_height(0.8).fill_opacity(80).legend(_legend()).with_target(_query(ask, "A"))


def number_panel(
    title: str, why: str, ask: Ask, *, unit: str = "none", width: int = 4, height: int = 4, decimals: int | None = None,
    states: Mapping[int, tuple[str, str]] | None = None,
) -> stat.Panel:  # fmt: skip
    """Show the last value of one series, large."""
    newest = common.ReduceDataOptions().calcs(["lastNotNull"])
    panel = _dressed(stat.Panel(), title, why, unit, width, height).reduce_options(newest)
    panel = panel.graph_mode(shared.BigValueGraphMode.NONE)
    if decimals is not None:
        panel = panel.decimals(decimals)
    if states:
        panel = panel.mappings([words_for(states)])
    return panel.with_target(_query(ask, "A"))


def table_panel(
    title: str, why: str, asks: Sequence[Ask], *, key: str = "run_id", renamed: Mapping[str, str] | None = None,
    links: Mapping[str, str] | None = None, width: int = 24, height: int = 9,
) -> table.Panel:  # fmt: skip
    """Show one row for each value of a label.

    Args:
        title: a few words.
        why: what is seen.
        asks: queries whose only common label is `key`; their labels are columns, and so is each one's value under its
            legend, unless that is empty.
        key: the label that makes a row.
        renamed: label -> heading.
        links: heading -> where a click on it leads.
        width: of 24.
        height: in rows of 30 pixels.
    """
    panel = _dressed(table.Panel(), title, why, "none", width, height).cell_height(shared.TableCellHeight.SM)
    drop, names = {"Time": True}, dict(renamed or {})
    for ref, ask in zip(_letters(), asks, strict=False):
        panel = panel.with_target(_column(ask, ref).instant())
        column = f"Value #{ref}" if len(asks) > 1 else "Value"  # as the data source names them
        if ask.legend:
            names[column] = ask.legend
        else:
            drop[column] = True
    panel = panel.with_transformation(_step("merge"))
    panel = panel.with_transformation(_step("organize", excludeByName=drop, renameByName=names, indexByName={key: 0}))
    for ask in asks:
        styles = [_property("unit", ask.unit)] if ask.unit else []
        styles += [_property("decimals", ask.decimals)] if ask.decimals is not None else []
        if styles:
            panel = panel.override_by_name(ask.legend, styles)
    for heading, url in (links or {}).items():
        panel = panel.override_by_name(heading, [_property("links", [{"title": "Look closely", "url": url}])])
    return panel


def against_panel(
    title: str, why: str, across: Ask, up: Ask, *, unit: str = "none", width: int = 12, height: int = 9
) -> xychart.Panel:
    """Draw one quantity against another, a line a run.

    Args:
        title: a few words.
        why: what is seen.
        across: the x axis; its only label is the run's.
        up: the y axis, likewise.
        unit: of the y axis.
        width: of 24.
        height: in rows of 30 pixels.
    """
    panel = _dressed(xychart.Panel(), title, why, unit, width, height)
    panel = panel.show(XYShowMode.POINTS_AND_LINES).point_size(xychart.XychartFieldConfigPointSize().fixed(3))
    for ref, ask in (("A", across), ("B", up)):
        panel = panel.with_target(_column(ask, ref))
    names = {"Value #A": across.legend, "Value #B": up.legend}
    order = {"Time": 0, "run_id": 1, "Value #A": 2, "Value #B": 3}
    panel = panel.with_transformation(_step("merge"))
    panel = panel.with_transformation(
        _step("organize", excludeByName={"Time": True}, renameByName=names, indexByName=order)
    )
    panel = panel.with_transformation(_step("partitionByValues", fields=["run_id"], keepFields=False))
    across_style = [_property("unit", across.unit or "none"), _property("custom.axisLabel", across.legend)]
    panel = panel.override_by_regexp(f"{across.legend}.*", across_style).legend(_legend())
    return panel.tooltip(common.VizTooltipOptions().mode(shared.TooltipDisplayMode.SINGLE))


def words_for(states: Mapping[int, tuple[str, str]]) -> model.ValueMap:
    """Show words and a colour in place of numbers."""
    return model.ValueMap(
        {str(number): model.ValueMappingResult(text=text, color=colour, index=i)
         for i, (number, (text, colour)) in enumerate(states.items())}
    )  # fmt: skip


def _dressed(panel: P, title: str, why: str, unit: str, width: int, height: int) -> P:
    """Give a panel what all have."""
    any_panel: Any = panel
    any_panel = any_panel.title(title).description(why).unit(unit).span(width).height(height)
    dressed: P = any_panel.datasource(SOURCE).interval("1s").max_data_points(MOST_POINTS)
    return dressed


def _lines(panel: P, scale: Scale, low: float | None, high: float | None) -> P:
    """Give a panel of lines what all of them have; gaps where a round did not measure are bridged."""
    x: Any = panel
    x = x.legend(_legend()).line_width(1.5).show_points(shared.VisibilityMode.AUTO).point_size(4).span_nulls(True)
    x = x.tooltip(common.VizTooltipOptions().mode(shared.TooltipDisplayMode.MULTI).sort(shared.SortOrder.DESCENDING))
    x = x.color_scheme(board.FieldColor().mode(model.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
    if scale == "log":
        x = x.scale_distribution(common.ScaleDistributionConfig().type(shared.ScaleDistribution.LOG).log(10))
    x = x if low is None else x.min(low)
    lined: P = x if high is None else x.max(high)
    return lined


def _series_styles(panel: P, bands: Sequence[Band], right: Mapping[str, str], points: Sequence[str]) -> P:
    """Fill bands, and put series on an axis of their own."""
    x: Any = panel
    for band in bands:
        x = x.override_by_name(band.upper, [_property("custom.fillBelowTo", band.lower)])
    for name, unit in right.items():
        style = [_property("custom.axisPlacement", "right"), _property("unit", unit)]
        x = x.override_by_regexp(name, style)
    for name in points:
        style = [_property("custom.drawStyle", "points"), _property("custom.pointSize", 10)]
        x = x.override_by_regexp(name, style)
    styled: P = x
    return styled


def _asked(panel: P, asks: Sequence[Ask]) -> P:
    x: Any = panel
    for ref, ask in zip(_letters(), asks, strict=False):
        x = x.with_target(_query(ask, ref))
    asked: P = x
    return asked


def _query(ask: Ask, ref: str) -> prometheus.Dataquery:
    return _unnamed(ask, ref).legend_format(ask.legend)


def _column(ask: Ask, ref: str) -> prometheus.Dataquery:
    """Return a query for a table, where `Value #A` and so on are renamed afterwards."""
    return _unnamed(ask, ref).format(PromQueryFormat.TABLE)


def _unnamed(ask: Ask, ref: str) -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(ask.expr).ref_id(ref).datasource(SOURCE).range()


def _legend() -> common.VizLegendOptions:
    return common.VizLegendOptions().show_legend(True).display_mode(shared.LegendDisplayMode.LIST)


def _step(name: str, **options: Any) -> model.DataTransformerConfig:
    return model.DataTransformerConfig(id_val=name, options=options)


def _property(name: str, value: Any) -> model.DynamicConfigValue:
    return model.DynamicConfigValue(id_val=name, value=value)


def _letters() -> list[str]:
    return [chr(65 + i) for i in range(26)]
