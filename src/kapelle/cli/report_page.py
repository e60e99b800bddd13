"""A report as one HTML page that needs nothing else: no script, no font, no address."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from kapelle.cli.report_words import (
    ENERGY_COLUMNS,
    MARKS,
    clock,
    energy_rows,
    facts,
    replaced_text,
    said,
    seconds,
)
from kapelle.words import energy, percent, power

if TYPE_CHECKING:
    from kapelle.api.report_shapes import IntervalJudgedTold, PointTold, ReportTold

_NARROW = ("at", "what", "energy", "device", "vendor", "why", "verdict", "quarter-hour")
"""Columns whose words stay on one line."""
_WIDTH, _HEIGHT = 880, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 12, 26

_STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--dim:#5d6773;--page:#fff;--line:#d9dee4;
--target:#1b1f24;--told:#0a6ebd;--band:#0a6ebd2e;--late:#b35900;--good:#1a7f37;--bad:#c4232b}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ed;--dim:#98a2ae;--page:#14171b;--line:#333a42;
--target:#e6e9ed;--told:#58b0f5;--band:#58b0f538;--late:#f0a44b;--good:#4cc26b;--bad:#ff7b72}}
body{background:var(--page);color:var(--ink);font:15px/1.5 system-ui,sans-serif;margin:2rem auto;
max-width:56rem;padding:0 1rem}
h1{font-size:1.5rem;margin:0}h2{font-size:1.05rem;margin:2rem 0 .4rem}p{margin:.3rem 0}
.delivered{color:var(--good)}.fell-short{color:var(--bad)}.dim,figcaption{color:var(--dim)}
dl{display:grid;gap:.1rem 1rem;grid-template-columns:max-content 1fr}dt{color:var(--dim)}
dd{margin:0}.wide{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;width:100%}
th,td{border-bottom:1px solid var(--line);padding:.3rem 0 .3rem 1.6rem;text-align:left;
vertical-align:top}th:first-child,td:first-child{padding-left:0}
th{color:var(--dim);font-weight:500}th,.n,.at{white-space:nowrap}.n{text-align:right}
.share{width:30%}.bar{background:var(--told);display:block;height:.6rem;margin-top:.45rem}
.exit .bar{background:var(--late)}
figure{margin:0}svg{height:auto;width:100%}svg text{fill:var(--dim);font-size:12px}
@media(max-width:40rem){body{margin:1rem auto}th,td{padding-left:.8rem}.share{display:none}
.at{white-space:normal}svg text{font-size:26px}
.power{text-anchor:start;transform:translate(10px,-8px)}}
@media print{body{margin:0}}
"""


def page(told: "ReportTold") -> str:
    """Return the page. Whatever a person or a device wrote is escaped."""
    judged = told.judged
    title = f"Order {told.order_no} · {judged.verdict.replace('-', ' ')}"
    mark, _ = MARKS[judged.verdict]
    parts = [
        f'<h1><span class="{judged.verdict}">{mark}</span> {escape(title)}</h1>',
        f"<p>{escape(judged.text[:1].upper() + judged.text[1:])}.</p>",
    ]
    if not told.is_complete:
        parts.append('<p class="dim">The record does not have all of it yet.</p>')
    parts.append(_definitions(row for row in facts(told) if not row[0].startswith("interval ")))
    parts.append("<h2>Delivered against target</h2>")
    parts.append(_plot(told.points))
    if told.intervals:
        parts += ["<h2>Intervals</h2>", _intervals(told.intervals)]
    parts.append("<h2>What was said</h2>")
    rows = [(row["at"], row["what"], row["text"]) for row in said(told)]
    parts.append(_table(("at", "what", "text"), rows))
    parts += ["<h2>Funnel</h2>", _funnel(told), "<h2>Who dropped out</h2>", _replaced(told)]
    parts += ["<h2>Energy</h2>", _energy(told)]
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )


def _definitions(found: Iterable[tuple[str, str]]) -> str:
    rows = (f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in found)
    return f"<dl>{''.join(rows)}</dl>"


def _table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], numbers: Sequence[str] = ()
) -> str:
    marks = [
        ' class="n"' if column in numbers else ' class="at"' if column in _NARROW else ""
        for column in columns
    ]
    head = "".join(f"<th{m}>{escape(c)}</th>" for c, m in zip(columns, marks, strict=True))
    body = "".join(
        "<tr>"
        + "".join(f"<td{m}>{escape(str(v))}</td>" for v, m in zip(row, marks, strict=True))
        + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _intervals(found: Sequence["IntervalJudgedTold"]) -> str:
    rows = [
        (
            number,
            clock(each.starts_at),
            clock(each.ends_at),
            f"{MARKS[each.judged.verdict][0]} {each.judged.verdict.replace('-', ' ')}",
            power(each.judged.target_w),
            power(each.judged.delivered_w),
            energy(each.published_mwh),
            energy(each.asked_mwh),
        )
        for number, each in enumerate(found, 1)
    ]
    numbers = ("target", "delivered", "energy", "asked")
    return _table(("interval", "from", "to", "verdict", *numbers), rows, numbers)


def _funnel(told: "ReportTold") -> str:
    most = max((stage.devices for stage in told.funnel), default=0) or 1
    rows = [
        f'<tr class="{"exit" if stage.is_exit else ""}"><td>{escape(stage.stage)}</td>'
        f'<td class="share"><span class="bar" style="width:{100 * stage.devices / most:.1f}%">'
        f'</span></td><td class="n">{stage.devices:,}</td><td class="n">{stage.commands:,}</td>'
        f"<td>{clock(stage.first_at)}</td><td>{clock(stage.last_at)}</td>"
        f'<td class="n">{seconds(stage.p50_s)}</td><td class="n">{seconds(stage.p95_s)}</td></tr>'
        for stage in told.funnel
    ]
    head = (
        '<tr><th>phase</th><th class="share"></th><th class="n">devices</th>'
        '<th class="n">commands</th><th>first</th><th>last</th><th class="n">half within</th>'
        '<th class="n">95 % within</th></tr>'
    )
    return f'<div class="wide"><table>{head}{"".join(rows)}</table></div>'


def _replaced(told: "ReportTold") -> str:
    replaced = told.replaced
    if not replaced.gone:
        return '<p class="dim">Nobody.</p>'
    rows = [
        (
            each.device_id,
            each.vendor,
            clock(each.at),
            each.cause,
            power(each.setpoint_w),
            clock(each.back_at),
        )
        for each in replaced.devices
    ]
    table = _table(("device", "vendor", "at", "why", "was asked", "back"), rows, ("was asked",))
    return f"<p>{escape(replaced_text(replaced))}.</p>{table}"


def _energy(told: "ReportTold") -> str:
    found = told.energy
    rows = [[row[column] for column in ENERGY_COLUMNS] for row in energy_rows(found)]
    text = _table(ENERGY_COLUMNS, rows, ("delivered", "asked"))
    if found.quarters:
        quarters = [
            (
                clock(each.starts_at),
                "–" if each.net_mwh is None else f"{each.net_mwh:,}",
                f"{each.baseline_mwh:,}",
                "–" if each.delivered_mwh is None else f"{each.delivered_mwh:,}",
                f"{each.asked_mwh:,}",
                f"{each.known:,} of {each.devices:,}",
            )
            for each in found.quarters
        ]
        columns = ("quarter-hour", "net mWh", "baseline mWh", "delivered mWh", "asked mWh", "known")
        text += _table(columns, quarters, columns[1:])
    share = percent(told.measured_share, 1)
    return f'{text}<p class="dim">{share} measured, the rest estimated.</p>'


def _plot(points: Sequence["PointTold"]) -> str:
    """Return target and delivered power over time as SVG, with the published interval."""
    if len(points) < 2:
        return '<p class="dim">The record holds no totals of it.</p>'
    first, last = points[0].at.timestamp(), points[-1].at.timestamp()
    values = [v for p in points for v in (0.0, p.target_w, p.delivered_w, p.low_w, p.high_w)]
    low, high = min(values), max(values)
    # An order of nothing still has an axis.
    span = (high - low) or 1.0
    low, high = low - 0.04 * span, high + 0.04 * span

    def x(point: "PointTold") -> float:
        part = (point.at.timestamp() - first) / ((last - first) or 1.0)
        return _LEFT + part * (_WIDTH - _LEFT - _RIGHT)

    def y(watts: float) -> float:
        return _TOP + (high - watts) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    def line(pairs: Iterable[tuple[float, float]]) -> str:
        return " ".join(f"{left:.1f},{top:.1f}" for left, top in pairs)

    upper = [(x(p), y(p.high_w)) for p in points]
    lower = [(x(p), y(p.low_w)) for p in reversed(points)]
    steps: list[tuple[float, float]] = []
    for point in points:
        # A target changes at once: it goes sideways first.
        steps += [(x(point), steps[-1][1])] if steps else []
        steps.append((x(point), y(point.target_w)))
    later = [(x(p), y(p.corrected_w)) for p in points if p.corrected_w is not None]
    marks = "".join(
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(w):.1f}" y2="{y(w):.1f}" '
        f'stroke="var(--line)"/><text class="power" x="{_LEFT - 6}" y="{y(w) + 4:.1f}" '
        'text-anchor="end">'
        f"{power(w)}</text>"
        for w in _marks(low, high)
    )
    ends = (
        f'<text x="{_LEFT}" y="{_HEIGHT - 6}">{clock(points[0].at)}</text>'
        f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 6}" text-anchor="end">'
        f"{clock(points[-1].at)}</text>"
    )
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="Target and delivered power over time">{marks}{ends}'
        f'<polygon points="{line(upper + lower)}" fill="var(--band)"/>'
        f'<polyline points="{line(steps)}" fill="none" stroke="var(--target)" '
        'stroke-dasharray="5 3"/>'
        f'<polyline points="{line(later)}" fill="none" stroke="var(--late)" stroke-width="1.5"/>'
        f'<polyline points="{line((x(p), y(p.delivered_w)) for p in points)}" fill="none" '
        'stroke="var(--told)" stroke-width="2"/></svg>'
        "<figcaption>Dashed: target. Blue: delivered as published, with its 95 % interval. "
        "Orange: as the readings say by now, in whole minutes.</figcaption></figure>"
    )


def _marks(low: float, high: float) -> list[float]:
    """Return round values between two, about five."""
    size = 10.0 ** len(str(int((high - low) / 5))) / 10 or 1.0
    step = next(size * n for n in (1, 2, 5, 10) if size * n >= (high - low) / 6)
    first = int(low // step) + 1
    return [step * n for n in range(first, int(high // step) + 1)]
