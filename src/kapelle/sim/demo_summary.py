"""What the demo says at its end, for people and for scripts."""

from math import isnan

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kapelle.sim.demo import Outcome
from kapelle.sim.demo_record import Recovery, Verdict
from kapelle.words import percent, power

_GOOD, _BAD, _QUIET = "bold green", "bold red", "grey50"


def tell(outcome: Outcome) -> None:
    """Print the summary on stdout."""
    console = Console(highlight=False)
    verdict, tolerance = outcome.verdict, outcome.options.tolerance
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style=_QUIET, no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(style=_QUIET)
    for name, value, note in _rows(outcome):
        table.add_row(name, value, note)
    console.print()
    console.print(table)
    console.print()
    style, mark = (_GOOD, "●") if outcome.passed else (_BAD, "✕")
    console.print(
        Text.assemble(
            (f"{mark} delivered {percent(verdict.delivered_mean, 1)}", style),
            f" of the {power(verdict.committed_w)} promised; the order allows ",
            f"±{percent(tolerance)}. ",
            ("Everything here is simulated, but for the plant.", _QUIET),
        )
    )


def _rows(outcome: Outcome) -> list[tuple[str, str, str]]:
    verdict, truth = outcome.verdict, outcome.truth
    readings, commands = outcome.readings, outcome.commands
    band = f"±{percent(outcome.options.tolerance)}"
    believed = percent(verdict.believed_mean, 1)
    held = f"its 95 % interval held {percent(verdict.interval_coverage)} of the truths"
    # When an edge agent reads, and what a station says beside its meter, is their own affair.
    sent = "due" if outcome.options.mix else "sent"
    effects = f"{truth.effects:,} took effect, {truth.double_effects:,} twice"
    if outcome.options.mix:
        # A protocol without revisions sets again what was set, which is another effect.
        effects = f"devices were set {truth.effects:,} times, {truth.double_effects:,} in error"
    return [
        (
            "delivered",
            percent(verdict.delivered_mean, 1),
            f"by the devices' own physics; the plant itself says {believed}",
        ),
        *_spoken(verdict),
        ("worst 5 s", percent(verdict.worst_5s, 1), "after settling, both faults included"),
        ("settled", _seconds(verdict.settle_s), f"from the start until within {band}"),
        *(("after a fault", *_recovery(r, band)) for r in verdict.recoveries),
        (
            "estimate",
            f"{percent(verdict.error_mean, 2)} off",
            f"mean distance from the truth; {held}",
        ),
        (
            "readings",
            f"{readings['accepted']:,} durable",
            f"of {readings['sent']:,} {sent}, {readings['quarantined']:,} quarantined",
        ),
        (
            "commands",
            f"{commands['issued']:,} issued",
            f"{commands['retries']:,} retries · {effects}",
        ),
        (
            "latency",
            _seconds(outcome.latency_s[0]),
            f"device to aggregate, median; 99 % within {_seconds(outcome.latency_s[1])}",
        ),
        (
            "acknowledged",
            f"{outcome.ack_ms[0]:.0f} ms",
            "from a device's publication to the answer that it is on disk, median",
        ),
        ("journal", f"{outcome.journal_bytes / 1e6:.1f} MB", "everything above, replayable"),
    ]


def _spoken(verdict: Verdict) -> list[tuple[str, str, str]]:
    """Return a row for each protocol; one alone delivered everything."""
    if len(verdict.shares) < 2:
        return []
    return [
        (
            f"· {name}",
            percent(share.delivered, 1),
            f"of the promise, by {share.devices:,} devices against their own schedules"
            + ("" if share.met else ": they did not move"),
        )
        for name, share in verdict.shares.items()
    ]


def as_json(outcome: Outcome) -> dict[str, object]:
    """Return the summary as plain values; NaN becomes null."""
    verdict, truth = outcome.verdict, outcome.truth
    return {
        "passed": outcome.passed,
        "devices": outcome.options.devices,
        "seconds": outcome.options.seconds,
        "seed": outcome.options.seed,
        "tolerance": outcome.options.tolerance,
        "committed_w": _known(verdict.committed_w),
        "delivered_mean": _known(verdict.delivered_mean),
        "believed_mean": _known(verdict.believed_mean),
        "delivered_with_rise": _known(verdict.delivered_with_rise),
        "protocols": {
            name: {
                "devices": share.devices,
                "delivered": _known(share.delivered),
                "moved": share.met,
            }
            for name, share in verdict.shares.items()
        },
        "worst_5s": _known(verdict.worst_5s),
        "settle_2pct_s": _known(verdict.settle_s),
        "faults": [
            {"text": r.text, "recover_2pct_s": _known(r.outside_s), "back_s": _known(r.back_s)}
            for r in verdict.recoveries
        ],
        "aggregate": {
            "error_mean": _known(verdict.error_mean),
            "interval_coverage": _known(verdict.interval_coverage),
        },
        "readings": dict(outcome.readings),
        "commands": dict(outcome.commands),
        "double_effects": truth.double_effects,
        "stale_effects": truth.stale_effects,
        "reverted": truth.reverted,
        "device_to_aggregate_s": {
            "p50": _known(outcome.latency_s[0]), "p99": _known(outcome.latency_s[1])
        },
        "publish_to_ack_ms": {"p50": _known(outcome.ack_ms[0]), "p99": _known(outcome.ack_ms[1])},
        "connections": {
            "made": truth.connects, "refused": truth.refused, "dropped": truth.drops
        },
        "journal_bytes": outcome.journal_bytes,
        "events": [
            {"at_s": round((e.at_ns - outcome.started_ns) / 1e9, 3), "text": e.text}
            for e in outcome.events
        ],
    }  # fmt: skip


def _known(value: float) -> float | None:
    return None if isnan(value) else round(value, 6)


def _seconds(value: float) -> str:
    return "never" if isnan(value) else f"{value:.1f} s"


def _short(text: str) -> str:
    return text.split(":")[0].removesuffix(")").split(" (")[0]


def _recovery(recovery: Recovery, band: str) -> tuple[str, str]:
    fault = _short(recovery.text)
    if recovery.back_s == 0.0:
        return "in band", f"{fault}; delivery never left {band}"
    again = "not back" if isnan(recovery.back_s) else f"back {_seconds(recovery.back_s)} after it"
    return f"{recovery.outside_s:.1f} s out", f"of {band}: {fault}; {again}"
