"""The front as one self-contained page: everything inline, so it opens offline and inside MLflow's sandboxed frame."""

import html
import json
from string import Template
from typing import Any

from tracking.front import Point, short
from tracking.result import Front

# Costs that can stand on the x axis, and how the axis is called; the first is shown first.
COSTS = {
    "keep_macs": "MACs kept (of the dense network's)",
    "macs": "MACs (1 MAC = 2 FLOPs)",
    "params": "parameters",
    "latency_ms": "latency (ms)",
    "training_macs": "training MACs",
    "checkpoint_bytes": "checkpoint (bytes)",
}
RUN_DIGITS = 8  # of a run's id; `export --run` takes as many
FRONT, FAINT, DENSE = "#0b5fa5", "#b9c4ce", "#c8541b"
LAYERS = ("beaten trials", "front", "dense baseline")


def page(result: Front) -> str:
    """The page's HTML: a chart to hover, zoom and switch axes in, and a table of the front."""
    from plotly.io import to_html

    chart = to_html(
        figure(result),
        full_html=False,
        include_plotlyjs=True,
        include_mathjax=False,
        validate=False,
        div_id="chart",
        config={"displaylogo": False, "responsive": True},
    )
    return Template(PAGE).substitute(
        title=html.escape(result.experiment),
        line=html.escape(_headline(result)),
        chart=chart,
        rows="\n".join(_row(point, result) for point in result.front),
    )


def figure(result: Front) -> dict[str, Any]:
    """The chart as plotly takes it: beaten trials faint, the front a stepped line, the dense baseline marked."""
    members = {point.plan_hash for point in result.front}
    beaten = [p for p in result.points if p.plan_hash not in members and p != result.baseline]
    groups = (beaten, list(result.front), [result.baseline] if result.baseline else [])
    costs = [cost for cost in COSTS if any(cost in point.metrics for point in result.points)] or ["keep_macs"]
    styles: tuple[dict[str, Any], ...] = (
        {"mode": "markers", "marker": {"color": FAINT, "size": 7}},
        {
            "mode": "lines+markers",
            "marker": {"color": FRONT, "size": 10},
            "line": {"color": FRONT, "width": 2, "shape": "hv"},
        },
        {"mode": "markers", "marker": {"color": DENSE, "size": 13, "symbol": "diamond"}},
    )
    traces = [
        {
            "type": "scatter",
            "name": name,
            "x": [point.metrics.get(costs[0]) for point in points],
            "y": [point.accuracy for point in points],
            "customdata": [point.plan_hash for point in points],
            "text": [_hover(point) for point in points],
            "hovertemplate": "%{text}<extra></extra>",
            **style,
        }
        for name, points, style in zip(LAYERS, groups, styles, strict=True)
    ]
    return {"data": traces, "layout": _layout(costs, groups)}


def _layout(costs: list[str], groups: tuple[list[Point], ...]) -> dict[str, Any]:
    buttons = [
        {
            "label": COSTS[cost],
            "method": "update",
            "args": [
                {"x": [[point.metrics.get(cost) for point in points] for points in groups]},
                {f"xaxis.{name}": value for name, value in _axis(cost).items()} | {"xaxis.autorange": True},
            ],
        }
        for cost in costs
    ]
    menu = {"buttons": buttons, "x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom", "showactive": True}
    return {
        "template": {},
        "height": 520,
        "margin": {"l": 70, "r": 20, "t": 84, "b": 60},
        "hovermode": "closest",
        "hoverlabel": {"align": "left"},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "xaxis": {"type": "log", "gridcolor": "#e8ecef", **_axis(costs[0])},
        "yaxis": {"title": {"text": "validation accuracy"}, "tickformat": ".1%", "gridcolor": "#e8ecef"},
        "updatemenus": [menu] if len(buttons) > 1 else [],
    }


def _axis(cost: str) -> dict[str, Any]:
    title = {"text": COSTS[cost]}
    if not cost.startswith("keep_"):
        return {"title": title, "tickmode": "auto", "tickformat": "~s"}
    ticks = [digit * 10.0**exponent for exponent in (-4, -3, -2, -1) for digit in (1, 2, 5)]
    return {"title": title, "tickmode": "array", "tickvals": [*ticks, 1.0], "tickformat": "~p"}


def _headline(result: Front) -> str:
    parts = [f"{count} {how}" for how, count in result.trials.items()]
    if result.hypervolume is not None:
        parts.append(f"hypervolume {result.hypervolume:.4f}")
    return f"{len(result.front)} points on the front; trials: " + ", ".join(parts)


def _hover(point: Point) -> str:
    lines = [f"<b>{html.escape(point.name or point.plan_hash)}</b>", f"accuracy {point.accuracy:.2%}"]
    lines += [f"{value} {what}" for what, value in _costs(point).items()]
    for path, value in choices(point).items():
        lines.append(f"{html.escape(path)}: {html.escape(value)}")
    return "<br>".join(lines)


def _costs(point: Point) -> dict[str, str]:
    shown = {"of the MACs": f"{point.keep_macs:.1%}"}
    for metric, what in (("macs", "MACs"), ("params", "parameters")):
        if metric in point.metrics:
            shown[what] = short(point.metrics[metric])
    return shown


def choices(point: Point) -> dict[str, str]:
    """What a reader wants to know of a plan at a glance: how it was pruned and how it recovered."""
    prune = point.plan.get("prune")
    if not prune:
        return {}
    shown = {part: _spelled(prune[part]) for part in ("criterion", "schedule", "allocation") if part in prune}
    if point.plan.get("recover"):
        shown["recovery"] = _spelled(point.plan["recover"])
    return shown


def _spelled(plugin: dict[str, Any]) -> str:
    settings = ", ".join(f"{name} {_value(value)}" for name, value in plugin.items() if name != "name")
    return f"{plugin['name']} ({settings})" if settings else str(plugin["name"])


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list | tuple):
        return " ".join(map(_value, value))
    return json.dumps(value).strip('"')


def _row(point: Point, result: Front) -> str:
    marks = [word for word, one in (("knee", result.knee), ("recommended", result.recommended)) if one == point]
    name = html.escape(point.name or point.plan_hash) + "".join(f" <em>{mark}</em>" for mark in marks)
    costs = _costs(point)
    cells = [f"{point.accuracy:.2%}", *(costs.get(what, "") for what in ("of the MACs", "MACs", "parameters"))]
    numbers = "".join(f'<td class="number">{cell}</td>' for cell in cells)
    words = "".join(f"<td>{html.escape(choices(point).get(part, ''))}</td>" for part in PARTS)
    run = "" if point.run_id is None else f'<span title="{point.run_id}">{point.run_id[:RUN_DIGITS]}</span>'
    return f'<tr id="{html.escape(point.plan_hash)}"><td>{name}</td>{numbers}{words}<td>{run}</td></tr>'


PARTS = ("criterion", "schedule", "allocation", "recovery")
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Front of $title</title>
<style>
body { font: 14px/1.45 system-ui, sans-serif; margin: 24px auto; max-width: 1200px; padding: 0 16px; color: #1d2730 }
h1 { font-size: 20px; margin: 0 } p { margin: 4px 0 12px; color: #55626e }
.scroll { overflow-x: auto } table { border-collapse: collapse; width: 100%; font-size: 13px }
th, td { text-align: left; padding: 5px 8px; border-bottom: 1px solid #e8ecef; vertical-align: top }
td.number, th.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
td:first-child { white-space: nowrap } tr.picked { background: #e3f0fb }
em { font-style: normal; font-size: 11px; background: #0b5fa5; color: #fff; border-radius: 3px; padding: 1px 5px }
</style></head><body>
<h1>Front of $title</h1><p>$line. Click a point to find it in the table.</p>
$chart
<div class="scroll"><table><thead><tr><th>trial</th><th class="number">accuracy</th><th class="number">MACs kept</th>
<th class="number">MACs</th><th class="number">parameters</th><th>criterion</th><th>schedule</th><th>allocation</th>
<th>recovery</th><th>run</th></tr></thead><tbody>
$rows
</tbody></table></div>
<script>
document.getElementById("chart").on("plotly_click", function (event) {
  document.querySelectorAll("tr.picked").forEach(function (row) { row.classList.remove("picked") })
  var row = document.getElementById(event.points[0].customdata)
  if (row) { row.classList.add("picked"); row.scrollIntoView({ block: "center" }) }
})
</script></body></html>
"""
