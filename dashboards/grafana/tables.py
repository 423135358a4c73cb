"""Panels of columns, joined from several queries: a table, and one quantity drawn against another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from grafana_foundation_sdk.builders import common, table, xychart
from grafana_foundation_sdk.models import common as shared
from grafana_foundation_sdk.models.xychart import XYShowMode

from dashboards.grafana.parts import Ask, column, dressed, legend, letters, step, styled


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
    panel = dressed(table.Panel(), title, why, "none", width, height).cell_height(shared.TableCellHeight.SM)
    drop, names = {"Time": True}, dict(renamed or {})
    for ref, ask in zip(letters(), asks, strict=False):
        panel = panel.with_target(column(ask, ref).instant())
        name = f"Value #{ref}" if len(asks) > 1 else "Value"  # as the data source names them
        if ask.legend:
            names[name] = ask.legend
        else:
            drop[name] = True
    panel = panel.with_transformation(step("merge"))
    panel = panel.with_transformation(step("organize", excludeByName=drop, renameByName=names, indexByName={key: 0}))
    for ask in asks:
        styles = [styled("unit", ask.unit)] if ask.unit else []
        styles += [styled("decimals", ask.decimals)] if ask.decimals is not None else []
        if styles:
            panel = panel.override_by_name(ask.legend, styles)
    for heading, url in (links or {}).items():
        panel = panel.override_by_name(heading, [styled("links", [{"title": "Look closely", "url": url}])])
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
    panel = dressed(xychart.Panel(), title, why, unit, width, height)
    panel = panel.show(XYShowMode.POINTS_AND_LINES).point_size(xychart.XychartFieldConfigPointSize().fixed(3))
    for ref, ask in (("A", across), ("B", up)):
        panel = panel.with_target(column(ask, ref))
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
