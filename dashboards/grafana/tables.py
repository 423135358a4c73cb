"""Panels with several queries joined as columns: a table, and one quantity against another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from grafana_foundation_sdk.builders import common, table, xychart
from grafana_foundation_sdk.models import common as shared
from grafana_foundation_sdk.models.xychart import XYShowMode

from dashboards.grafana.parts import Query, column, dressed, legend, letters, step, styled


def table_panel(
    title: str, why: str, queries: Sequence[Query], *, key: str = "run_id", renamed: Mapping[str, str] | None = None,
    links: Mapping[str, str] | None = None, width: int = 24, height: int = 9,
) -> table.Panel:  # fmt: skip
    """Show one row per value of a label.

    Args:
        title: a few words.
        why: its description.
        queries: queries whose only common label is `key`. Their labels are columns. Their values are columns with the
            legend as heading, unless the legend is empty.
        key: the label of a row.
        renamed: label -> heading.
        links: heading -> the address of its link.
        width: of 24.
        height: in rows of 30 pixels.
    """
    panel = dressed(table.Panel(), title, why, "none", width, height).cell_height(shared.TableCellHeight.SM)
    drop, names = {"Time": True}, dict(renamed or {})
    for ref, source in zip(letters(), queries, strict=False):
        panel = panel.with_target(column(source, ref).instant())
        name = f"Value #{ref}" if len(queries) > 1 else "Value"  # as the data source names it
        if source.legend:
            names[name] = source.legend
        else:
            drop[name] = True
    panel = panel.with_transformation(step("merge"))
    panel = panel.with_transformation(step("organize", excludeByName=drop, renameByName=names, indexByName={key: 0}))
    for source in queries:
        styles = [styled("unit", source.unit)] if source.unit else []
        styles += [styled("decimals", source.decimals)] if source.decimals is not None else []
        if styles:
            panel = panel.override_by_name(source.legend, styles)
    for heading, url in (links or {}).items():
        panel = panel.override_by_name(heading, [styled("links", [{"title": "Show details", "url": url}])])
    return panel


def against_panel(
    title: str, why: str, across: Query, up: Query, *, unit: str = "none", width: int = 12, height: int = 9
) -> xychart.Panel:
    """Draw one quantity against another, one line per run.

    Args:
        title: a few words.
        why: its description.
        across: the x axis; its only label is the run's.
        up: the y axis; its only label is the run's.
        unit: of the y axis.
        width: of 24.
        height: in rows of 30 pixels.
    """
    panel = dressed(xychart.Panel(), title, why, unit, width, height)
    panel = panel.show(XYShowMode.POINTS_AND_LINES).point_size(xychart.XychartFieldConfigPointSize().fixed(3))
    for ref, source in (("A", across), ("B", up)):
        panel = panel.with_target(column(source, ref))
    names = {"Value #A": across.legend, "Value #B": up.legend}
    order = {"Time": 0, "run_id": 1, "Value #A": 2, "Value #B": 3}
    panel = panel.with_transformation(step("merge"))
    panel = panel.with_transformation(
        step("organize", excludeByName={"Time": True}, renameByName=names, indexByName=order)
    )
    panel = panel.with_transformation(step("partitionByValues", fields=["run_id"], keepFields=False))
    across_style = [styled("unit", across.unit or "none"), styled("custom.axisLabel", across.legend)]
    panel = panel.override_by_regexp(f"{across.legend}.*", across_style).legend(legend())
    return panel.tooltip(common.VizTooltipOptions().mode(shared.TooltipDisplayMode.SINGLE))
