"""What the demo shows while it runs: one picture of the plant, drawn anew each time."""

from dataclasses import dataclass, field
from math import isnan, nan

from rich.box import ROUNDED
from rich.console import Group, RenderableType
from rich.layout import Layout
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from kapelle.fleet.plant import Aggregate
from kapelle.model.enums import Freshness, Phase
from kapelle.sim.demo_plot import Band, Line, Mark, plot
from kapelle.sim.demo_record import Event, Record
from kapelle.words import number, percent

TARGET, ACTUAL, TRUTH, QUIET, GOOD, ODD, BAD = (
    "bold cyan", "bold", "grey50", "grey50", "green", "yellow", "bold red",
)  # fmt: skip
SIZE = (100, 30)
_BAR = "━"
_FADED = "─"
_STATES = (
    (Freshness.LIVE, "●", "live", GOOD),
    (Freshness.LATE, "◐", "late", ODD),
    (Freshness.STALE, "○", "stale", ODD),
    (Freshness.LOST, "✕", "lost", BAD),
    (Freshness.NEVER, "·", "never", QUIET),
)
_CHAIN = (
    (Phase.PLANNED, "commanded"),
    (Phase.SENT, "sent"),
    (Phase.ACCEPTED, "accepted"),
    (Phase.APPLIED, "applied"),
    (Phase.VERIFIED, "verified"),
)
_EXITS = (Phase.REJECTED, Phase.OPTED_OUT, Phase.EXPIRED, Phase.UNKNOWN, Phase.DIVERGED)


@dataclass(slots=True)
class Scene:
    """Everything the picture is made of."""

    record: Record
    total_s: float
    devices: int
    spoken: str = "each a real MQTT client"
    """What the devices speak."""
    now_ns: int = 0
    aggregate: Aggregate | None = None
    target_w: float = nan
    """What the resource shall draw or feed now; NaN without an active order. [W]"""
    baseline_w: float = nan
    committed_w: float = 0.0
    connected: int = 0
    readings: int = 0
    rate: float = 0.0
    """Readings accepted per second."""
    heading: str = ""
    log: list[Event] = field(default_factory=list)
    """Script and notices, oldest first."""


def draw(scene: Scene, size: tuple[int, int] = SIZE) -> RenderableType:
    """Return the picture for a terminal of this size."""
    width, height = max(80, size[0]), max(24, size[1])
    right = 32
    below = 8
    plot_height = height - 3 - below
    layout = Layout()
    layout.split_column(
        Layout(_header(scene), size=2),
        Layout(name="middle", size=plot_height),
        Layout(name="bottom", size=below),
        Layout(_footer(scene), size=1),
    )
    layout["middle"].split_row(
        Layout(_curves(scene, (width - right, plot_height))),
        Layout(name="side", size=right),
    )
    layout["side"].split_column(
        Layout(_coverage(scene, right), size=8),
        Layout(_funnel(scene, right)),
    )
    layout["bottom"].split_row(
        Layout(_log(scene, below - 2)),
        Layout(_exceptions(scene), size=right),
    )
    return layout


def _panel(body: RenderableType, title: str, subtitle: str = "") -> Panel:
    return Panel(
        body,
        title=f"[bold default]{title}[/]",
        subtitle=f"[grey50]{subtitle}[/]" if subtitle else None,
        title_align="left",
        subtitle_align="right",
        border_style="grey50",
        box=ROUNDED,
        padding=(0, 1),
    )


def megawatts(power_w: float, *, sign: bool = False) -> str:
    """Return a power in MW, three places; a dash where it is not known."""
    if isnan(power_w):
        return "–"
    return number(power_w / 1e6, 3, sign=sign)


def _header(scene: Scene) -> RenderableType:
    now_s = min(scene.record.seconds(scene.now_ns), scene.total_s)
    first = Text.assemble(
        (" kapelle ", "bold black on cyan"),
        (f"  {scene.devices:,} simulated devices, {scene.spoken}", "bold"),
        no_wrap=True,
    )
    clock = Text(f"{int(now_s) // 60:02d}:{int(now_s) % 60:02d} / {_clock(scene.total_s)} ", QUIET)
    second = Text(" ", no_wrap=True)
    aggregate = scene.aggregate
    if aggregate is None:
        second.append(scene.heading or "starting …", QUIET)
    else:
        half_w = (aggregate.high_w - aggregate.low_w) / 2
        second.append("ACTUAL ", QUIET)
        second.append(f"{megawatts(aggregate.power_w, sign=True)} MW", ACTUAL)
        second.append(f" ±{half_w / 1e6:.3f}", QUIET)
        second.append("   TARGET ", QUIET)
        target = "none" if isnan(scene.target_w) else f"{megawatts(scene.target_w, sign=True)} MW"
        second.append(target, TARGET)
        second.append_text(_deviation(scene))
    grid = Table.grid(expand=True)
    grid.add_column(ratio=1)
    grid.add_column(justify="right")
    grid.add_row(first, clock)
    grid.add_row(second, Text("+ = towards the grid ", QUIET))
    return grid


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60:02d}:{int(seconds) % 60:02d}"


def _deviation(scene: Scene) -> Text:
    if scene.aggregate is None or isnan(scene.target_w) or not scene.committed_w:
        return Text("   no order", QUIET)
    share = (scene.aggregate.power_w - scene.target_w) / abs(scene.committed_w)
    share = round(share, 3)
    if abs(share) <= scene.record.tolerance:
        return Text(f"   ● on target {percent(share, 1, sign=True)}", GOOD)
    return Text(f"   {'▲ over' if share > 0 else '▼ under'} {percent(share, 1, sign=True)}", ODD)


def _curves(scene: Scene, size: tuple[int, int]) -> Panel:
    record = scene.record
    seen = [(record.seconds(s.at_ns), s) for s in record.seen]
    lines = [
        Line([(record.seconds(at), power / 1e6) for at, power in record.true], TRUTH),
        Line([(t, s.target_w / 1e6) for t, s in seen], TARGET, steps=True),
        Line([(t, s.power_w / 1e6) for t, s in seen], ACTUAL),
    ]
    band = Band([(t, s.low_w / 1e6, s.high_w / 1e6) for t, s in seen], QUIET)
    marks = [
        Mark(record.seconds(event.at_ns), event.mark, BAD if event.is_fault else TARGET)
        for event in record.events
    ]
    rows = plot(
        lines, band, size=(size[0] - 4, size[1] - 2), span_x=(0.0, scene.total_s), marks=marks
    )
    legend = "[cyan]▬[/] target  [bold default]━[/] actual  [grey50]┄ truth  ░ 95 % interval[/]"
    return _panel(Group(*rows), "Power [not bold grey50]MW[/]", legend)


def _bar(share: float, width: int, style: str) -> Text:
    cells = round(max(0.0, min(1.0, share)) * width)
    if share > 0 and not cells:
        cells = 1
    return Text.assemble((_BAR * cells, style), (_FADED * (width - cells), QUIET))


def _coverage(scene: Scene, width: int) -> Panel:
    counts = scene.aggregate.freshness if scene.aggregate else (0,) * len(Freshness)
    total = sum(counts) or 1
    grid = Table.grid(padding=(0, 1), expand=True)
    for justify in ("left", "left", "right", "left"):
        grid.add_column(justify=justify)
    for state, shape, word, style in _STATES:
        count = counts[state]
        # Colour only where there is something to see; shape and word say the same.
        shown = style if count else QUIET
        bar = _bar(count / total, width - 22, style)
        grid.add_row(Text(shape, shown), Text(word, shown), Text(f"{count:,}", shown), bar)
    measured = scene.aggregate.measured_share if scene.aggregate else nan
    note = f"{percent(measured, 1)} measured" if not isnan(measured) else "waiting"
    return _panel(grid, "Coverage", note)


def _funnel(scene: Scene, width: int) -> Panel:
    phases = scene.aggregate.phases if scene.aggregate else ()
    reached = [sum(phases[phase : Phase.COMPLETED]) for phase, _ in _CHAIN] if phases else []
    most = max([*reached, 1])
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column()
    grid.add_column(justify="right")
    grid.add_column()
    for place, (_, word) in enumerate(_CHAIN):
        count = reached[place] if reached else 0
        bar = _bar(count / most if any(reached) else 0.0, width - 23, "cyan")
        grid.add_row(Text(word, "" if count else QUIET), f"{count:,}", bar)
    exits = [(phase, phases[phase]) for phase in _EXITS if phases and phases[phase]]
    words = [f"{count:,} {phase.name.lower().replace('_', ' ')}" for phase, count in exits]
    tail = Text("▲ " + ", ".join(words), ODD) if words else Text("○ all answered", QUIET)
    if not any(reached) and not words:
        tail = Text("○ no commands out", QUIET)
    return _panel(Group(grid, tail), "Delivery")


def _exceptions(scene: Scene) -> Panel:
    rows: list[Text] = []
    if (aggregate := scene.aggregate) is not None:
        for name, (devices, heard) in aggregate.vendors.items():
            if devices and heard < 0.5 * devices:
                rows.append(Text(f"✕ {name}: {heard:,} of {devices:,} heard", BAD))
        for reason, count in sorted(aggregate.excluded.items(), key=lambda item: -item[1]):
            if count and reason != "none":
                rows.append(Text(f"▲ {count:,} {reason.replace('_', ' ')}: set aside", ODD))
    if not rows:
        rows = [Text("○ none", QUIET)]
    return _panel(Group(*rows[:5]), "Exceptions")


def _log(scene: Scene, rows: int) -> Panel:
    lines = [_event(scene.record, event) for event in scene.log[-rows:]]
    return _panel(Group(*lines) if lines else Text("○ nothing yet", QUIET), "Timeline")


def _event(record: Record, event: Event) -> Text:
    seconds = max(0.0, record.seconds(event.at_ns))
    at = Text.assemble((f"{seconds:5.1f} s  ", QUIET), no_wrap=True)
    at.append(f"{event.mark} ", BAD if event.is_fault else TARGET)
    at.append(event.text, "")
    at.truncate(200, overflow="ellipsis")
    return at


def _footer(scene: Scene) -> Text:
    parts = [
        f"{scene.connected:,} connected",
        f"{scene.readings:,} readings durable ({scene.rate:,.0f}/s)",
        "Ctrl-C ends it",
    ]
    return Text(" " + " · ".join(parts), QUIET, no_wrap=True)


def plain(scene: Scene) -> str:
    """Return the picture as one line, for logs and pipes."""
    aggregate = scene.aggregate
    at = f"{scene.record.seconds(scene.now_ns):6.1f} s"
    if aggregate is None:
        return f"{at}  {scene.heading or 'starting'}  connected {scene.connected:,}"
    live, late = aggregate.freshness[Freshness.LIVE], aggregate.freshness[Freshness.LATE]
    verified = aggregate.phases[Phase.VERIFIED]
    return (
        f"{at}  actual {megawatts(aggregate.power_w, sign=True)} MW"
        f"  target {megawatts(scene.target_w, sign=True)} MW"
        f"  live {live:,}  late {late:,}  of {aggregate.devices:,}"
        f"  verified {verified:,}"
    )
