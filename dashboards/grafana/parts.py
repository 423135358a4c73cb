"""What panels of every kind share: a query, a description, a unit, a size, and names for what Grafana counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from grafana_foundation_sdk.builders import common, prometheus
from grafana_foundation_sdk.models import common as shared
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = shared.DataSourceRef(type_val="prometheus", uid="${datasource}")
MOST_POINTS = 10_000
"""Points a panel asks for; Prometheus refuses more than 11,000 a series."""

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


def dressed(panel: P, title: str, why: str, unit: str, width: int, height: int) -> P:
    """Give a panel what all have."""
    any_panel: Any = panel
    any_panel = any_panel.title(title).description(why).unit(unit).span(width).height(height)
    result: P = any_panel.datasource(SOURCE).interval("1s").max_data_points(MOST_POINTS)
    return result


def query(ask: Ask, ref: str) -> prometheus.Dataquery:
    """Return a query for series over time."""
    return _query(ask, ref).legend_format(ask.legend)


def column(ask: Ask, ref: str) -> prometheus.Dataquery:
    """Return a query for a table, where `Value #A` and so on are renamed afterwards."""
    return _query(ask, ref).format(PromQueryFormat.TABLE)


def _query(ask: Ask, ref: str) -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(ask.expr).ref_id(ref).datasource(SOURCE).range()


def legend() -> common.VizLegendOptions:
    """Return a legend below the panel."""
    return common.VizLegendOptions().show_legend(True).display_mode(shared.LegendDisplayMode.LIST)


def step(name: str, **options: Any) -> model.DataTransformerConfig:
    """Return one transformation of what the queries gave."""
    return model.DataTransformerConfig(id_val=name, options=options)


def styled(name: str, value: Any) -> model.DynamicConfigValue:
    """Return one property that some series or column has of its own."""
    return model.DynamicConfigValue(id_val=name, value=value)


def letters() -> list[str]:
    """Return the names of a panel's queries, as Grafana gives them."""
    return [chr(65 + i) for i in range(26)]
