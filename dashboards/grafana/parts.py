"""Parts that all kinds of panels share: queries, descriptions, units, sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from grafana_foundation_sdk.builders import common, prometheus
from grafana_foundation_sdk.models import common as shared
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = shared.DataSourceRef(type_val="prometheus", uid="${datasource}")
MOST_POINTS = 10_000
"""The most points of a panel; Prometheus refuses more than 11,000 per series."""

P = TypeVar("P")


@dataclass(frozen=True)
class Query:
    """One query.

    Attributes:
        expr: PromQL.
        legend: a series' name, with labels in double braces; in a table the column's heading, empty for none.
        unit: the unit of this column, in a table.
        decimals: the decimals of this column, in a table.
    """

    expr: str
    legend: str = "{{run_id}}"
    unit: str = ""
    decimals: int | None = None


def dressed(panel: P, title: str, why: str, unit: str, width: int, height: int) -> P:
    """Set the title, description, unit and size of a panel."""
    any_panel: Any = panel
    any_panel = any_panel.title(title).description(why).unit(unit).span(width).height(height)
    result: P = any_panel.datasource(SOURCE).interval("1s").max_data_points(MOST_POINTS)
    return result


def query(source: Query, ref: str) -> prometheus.Dataquery:
    """Return a query for series over time."""
    return _query(source, ref).legend_format(source.legend)


def column(source: Query, ref: str) -> prometheus.Dataquery:
    """Return a query for a table, where `Value #A` and so on are renamed afterwards."""
    return _query(source, ref).format(PromQueryFormat.TABLE)


def _query(source: Query, ref: str) -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(source.expr).ref_id(ref).datasource(SOURCE).range()


def legend() -> common.VizLegendOptions:
    """Return a legend below the panel."""
    return common.VizLegendOptions().show_legend(True).display_mode(shared.LegendDisplayMode.LIST)


def step(name: str, **options: Any) -> model.DataTransformerConfig:
    """Return one transformation of the queries' results."""
    return model.DataTransformerConfig(id_val=name, options=options)


def styled(name: str, value: Any) -> model.DynamicConfigValue:
    """Return one property of a single series or column."""
    return model.DynamicConfigValue(id_val=name, value=value)


def letters() -> list[str]:
    """Return the names of a panel's queries: A, B, C."""
    return [chr(65 + i) for i in range(26)]
