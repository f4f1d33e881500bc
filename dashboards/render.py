"""Draws a dashboard as Grafana's JSON, by Grafana's Foundation SDK. Called by `dashboards.files`."""

from __future__ import annotations

import json
from typing import Any

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    BigValueTextMode,
    GraphDrawStyle,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
)
from grafana_foundation_sdk.models.dashboard import (
    AnnotationQuery,
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMapping,
    ValueMappingResult,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from dashboards.model import NOTES, Board, Note, Panel, Query, Words

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
TAG = "vcrecon"
AnyPanel = stat.Panel | timeseries.Panel | table.Panel | bargauge.Panel


def render(board: Board) -> str:
    """The JSON of a dashboard, which Grafana 11 and newer load."""
    builder = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags([TAG])
        .readonly()
        .time("now-1h", "now")
        .refresh("10s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("vcrecon")
            .type(DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .keep_time(True)
            .icon("external link")
            .tooltip("the other dashboards of vcrecon")
        )
        .with_variable(
            dashboard.DatasourceVariable("datasource")
            .label("Prometheus")
            .type("prometheus")
            .current(VariableOption(selected=True, text="vcrecon", value="vcrecon"))
        )
    )
    if board.variable is not None:
        builder.with_variable(_variable(*board.variable))
    for note in NOTES:
        builder.annotation(_Annotation(note))
    for number, panel in enumerate(board.panels, 1):
        builder.with_panel(_panel(panel).id(number))
    return json.dumps(builder.build(), cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


class _TitledAnnotation(AnnotationQuery):
    """The SDK's type lacks the fields that say what a mark shows."""

    title_format = ""

    def to_json(self) -> dict[str, object]:
        return {**super().to_json(), "titleFormat": self.title_format, "step": "30s"}


class _Annotation(dashboard.AnnotationQuery):
    def __init__(self, note: Note) -> None:
        found = _TitledAnnotation(name=note.name, datasource=SOURCE, icon_color=note.colour, expr=note.expr)
        found.title_format = note.title
        self._internal = found


def _variable(label: str, metric: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(label)
        .label(label)
        .datasource(SOURCE)
        .query({"query": f"label_values({metric}, {label})", "refId": label})
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.NATURAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".+")  # not those that have none
        .current(VariableOption(selected=True, text="All", value="$__all"))
    )


def _panel(panel: Panel) -> AnyPanel:
    drawn: AnyPanel
    if panel.kind == "graph":
        drawn = _graph(panel)
    elif panel.kind == "table":
        drawn = _table(panel)
    else:
        drawn = _number(panel)
    drawn.title(panel.title).description(panel.description + (f" Empty when {panel.empty}." if panel.empty else ""))
    drawn.datasource(SOURCE).span(panel.width).height(panel.height)
    drawn.no_value(panel.empty or "no data")
    if panel.unit:
        drawn.unit(panel.unit)
    steps = [Threshold(value=None, color=panel.steps[0][1])]
    steps += [Threshold(value=value, color=colour) for value, colour in panel.steps[1:]]
    drawn.thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
    if panel.words:
        drawn.mappings([_mapping(panel.words)])
    if panel.link:
        uid, label = panel.link
        url = f"/d/{uid}?var-{label}=${{__field.labels.{label}}}&${{__url_time_range}}"
        drawn.data_links([dashboard.DashboardLink(f"${{__field.labels.{label}}}").url(url)])
    for number, query in enumerate(panel.queries):
        drawn.with_target(_target(panel, query, _ref(number)))
    return drawn


def _ref(number: int) -> str:
    return chr(ord("A") + number)


def _target(panel: Panel, query: Query, ref: str) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expr).ref_id(ref).datasource(SOURCE)
    if panel.kind == "graph":
        return target.range().legend_format(query.legend)
    if panel.kind == "table":
        return target.instant().format(PromQueryFormat.TABLE)
    return target.instant().legend_format(query.legend or "__auto")


def _mapping(words: Words) -> ValueMapping:
    results = {
        str(code): ValueMappingResult(text=word, color=colour, index=number)
        for number, (code, (word, colour)) in enumerate(words.items())
    }
    return ValueMap(options=results)


def _number(panel: Panel) -> stat.Panel:
    drawn = (
        stat.Panel()
        .graph_mode(BigValueGraphMode.NONE)
        .color_scheme(dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    )
    if panel.kind == "tiles":
        drawn.color_mode(BigValueColorMode.BACKGROUND_SOLID).text_mode(BigValueTextMode.VALUE_AND_NAME)
    elif panel.names:
        drawn.color_mode(BigValueColorMode.NONE).text_mode(BigValueTextMode.NAME)
    else:
        several = len(panel.queries) > 1
        drawn.color_mode(BigValueColorMode.BACKGROUND_SOLID if panel.words else BigValueColorMode.VALUE)
        drawn.text_mode(BigValueTextMode.VALUE_AND_NAME if several else BigValueTextMode.VALUE)
    return drawn


def _graph(panel: Panel) -> timeseries.Panel:
    drawn = (
        timeseries.Panel()
        .min(0)
        .line_width(2)
        .draw_style(GraphDrawStyle.LINE)
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
        )
    )
    if panel.stacked:
        drawn.fill_opacity(30).stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    return drawn


def _table(panel: Panel) -> table.Panel:
    """One row for each set of labels, and a column for each query that has a name."""
    drawn = table.Panel()
    if len(panel.queries) > 1:
        drawn.with_transformation(DataTransformerConfig(id_val="merge", options={}))
    hidden, names, order = {"Time": True}, {}, []
    for label, shown in panel.labels.items():
        names[label] = shown
        order.append(label)
    for number, query in enumerate(panel.queries):
        column = f"Value #{_ref(number)}" if len(panel.queries) > 1 else "Value"
        order.append(column)
        if query.legend:
            names[column] = query.legend
            drawn.override_by_name(query.legend, _column(query))
        else:
            hidden[column] = True
    options: dict[str, Any] = {
        "excludeByName": hidden,
        "indexByName": {column: place for place, column in enumerate(order)},
        "renameByName": names,
    }
    return drawn.with_transformation(DataTransformerConfig(id_val="organize", options=options)).filterable(True)


def _column(query: Query) -> list[DynamicConfigValue]:
    found = []
    if query.unit:
        found.append(DynamicConfigValue(id_val="unit", value=query.unit))
    if query.words:
        found.append(DynamicConfigValue(id_val="mappings", value=[_mapping(query.words)]))
        found.append(DynamicConfigValue(id_val="custom.cellOptions", value={"type": "color-text"}))
    return found
