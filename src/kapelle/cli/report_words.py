"""What a report says, in words: the same in a terminal, on a page and while an order runs."""

from datetime import datetime
from typing import TYPE_CHECKING

from kapelle.words import counted, energy, percent, power

if TYPE_CHECKING:
    # The record is costly to import: only the commands that need it do.
    from kapelle.api.report_shapes import (
        EnergyTold,
        IntervalJudgedTold,
        JudgedTold,
        ReplacedTold,
        ReportTold,
    )

MARKS = {
    "delivered": ("●", "green"),
    "promise-kept": ("◐", "yellow"),
    "fell-short": ("▲", "red"),
    "declined": ("✕", "yellow"),
    "cancelled": ("✕", "yellow"),
    "running": ("…", "cyan"),
    "unknown": ("?", "yellow"),
}
ENERGY_COLUMNS = ("energy", "delivered", "asked", "rests on")


def facts(told: "ReportTold") -> list[tuple[str, str]]:
    """Return what is known of an order, each with its name."""
    judged, second = told.judged, f", let go by {told.operated_by}" if told.operated_by else ""
    found = [
        (
            "asked",
            f"{power(told.target_w)} of {told.resource} within ±{percent(told.tolerance, 1)}",
        ),
        ("by", f"{told.issued_by or '–'}{second}, product {told.product}, {day(told.issued_at)}"),
        *([("for", told.why)] if told.why else []),
        ("ran", f"{day(told.starts_at)} to {clock(told.ends_at)}, {told.status}"),
    ]
    if judged.delivered_w is not None:
        found.append(("delivered", delivered_text(judged)))
        within = (
            f"{percent(judged.within_share, 1)} of {judged.judged_s:,.0f} s within the tolerance"
        )
        left_out = f"the first {judged.settle_s:.0f} s after each change are not judged"
        found.append(("", f"{within}; {left_out}"))
    found += [
        (f"interval {number}", interval_text(each)) for number, each in enumerate(told.intervals, 1)
    ]
    if told.measured_share is not None:
        guessed = percent(1.0 - told.measured_share, 1)
        found.append(
            ("evidence", f"{percent(told.measured_share, 1)} measured, {guessed} estimated")
        )
    if told.worst is not None:
        worst = told.worst
        when = f"{clock(worst.starts_at)} to {clock(worst.ends_at)}"
        means = f"{power(worst.delivered_w)} of {power(worst.target_w)}"
        found.append(("worst 5 min", f"{when}: {power(worst.missing_w)} off, {means}"))
    return found


def interval_text(each: "IntervalJudgedTold") -> str:
    """Say what became of one interval of a profile."""
    mark, _ = MARKS[each.judged.verdict]
    asked = f"{clock(each.starts_at)} to {clock(each.ends_at)} {mark} {each.judged.verdict}"
    if each.judged.delivered_w is None:
        return asked
    return f"{asked}: {delivered_text(each.judged)}"


def delivered_text(judged: "JudgedTold") -> str:
    """Say how much was delivered of what, and how sure that is."""
    doubt = power(((judged.high_w or 0.0) - (judged.low_w or 0.0)) / 2)
    off = "" if judged.deviation is None else f", {percent(judged.deviation, 2, sign=True)}"
    return f"{power(judged.delivered_w)} ±{doubt} of {power(judged.target_w)}{off}"


def said(told: "ReportTold") -> list[dict[str, object]]:
    """Return what people and dispatch said of it, in order of time."""
    by = told.issued_by or "–"
    ordered = f"{power(told.target_w)} until {clock(told.planned_end_at)}, by {by}"
    rows: list[tuple[datetime, str, str]] = [(told.issued_at, "order", ordered)]
    before = ""
    for plan in told.plans:
        text = f"{plan.status}, promised {power(plan.committed_w)}"
        if plan.firm_w is not None:
            text += f" ({power(plan.firm_w)} were 95 % sure)"
        if plan.baseline_w is not None:
            text += f" from {power(plan.baseline_w)}"
        if plan.declined_w:
            text += f", declined {power(plan.declined_w)}: {plan.reason}"
        # A roll-out writes its plan anew with each stage.
        if text != before:
            rows.append((plan.at, "plan", text))
        before = text
    rows += _stages(told)
    for amend in told.amends:
        text = f"{power(amend.target_w)} until {clock(amend.ends_at)}, by {amend.issued_by or '–'}"
        rows.append((amend.at, "amend", text))
    if told.cancelled is not None:
        rows.append((told.cancelled.at, "cancel", f"by {told.cancelled.issued_by or '–'}"))
    if told.held_before:
        rows.append((told.starts_at, "hold", "the plant was held when it began"))
    for each in told.occurred:
        by = f", by {each.by}" if each.by else ""
        rows.append((each.at, each.code, f"{each.text}{by}".removeprefix(", ")))
    rows.sort(key=lambda row: row[0])
    return [{"at": clock(at), "what": what, "text": text} for at, what, text in rows]


def _stages(told: "ReportTold") -> list[tuple[datetime, str, str]]:
    """Return the stages an order began in, each with what it came to."""
    if not told.plans or not told.plans[-1].stages:
        return []
    rows = []
    for stage in told.plans[-1].stages:
        text = f"{percent(stage.share)} of its devices"
        if stage.asked:
            text += f": {stage.asked:,} asked, {stage.verified:,} verified, {stage.failed:,} failed"
        rows.append((stage.at, "stage", text))
    return rows


def replaced_text(replaced: "ReplacedTold") -> str:
    """Say how many dropped out, and who did their part."""
    return (
        f"{counted(replaced.gone, 'device')} gone, {replaced.back:,} back; after the first of them "
        f"{replaced.joined:,} joined ({power(replaced.joined_w)}), {replaced.raised:,} were raised "
        f"by {power(replaced.raised_w)}, {replaced.lowered:,} lowered by "
        f"{power(abs(replaced.lowered_w))}"
    )


def energy_rows(told: "EnergyTold") -> list[dict[str, object]]:
    """Return each account of the energy beside what was asked over the same time."""
    published, minutes = f"{told.published_s:,.0f} s", round(told.corrected_s / 60)
    quarters = counted(len(told.quarters), "whole quarter-hour")
    accounts = [
        ("promised", told.promised_mwh, told.asked_mwh, "dispatch's plans, the whole window"),
        (
            "as published",
            told.published_mwh,
            told.published_asked_mwh,
            f"what the plant said over {published}",
        ),
        (
            "as corrected",
            told.corrected_mwh,
            told.corrected_asked_mwh,
            f"readings of {counted(minutes, 'whole minute')}",
        ),
        ("in the ledger", told.ledger_mwh, told.ledger_asked_mwh, f"registers over {quarters}"),
    ]
    return [
        {
            "energy": name,
            "delivered": energy(mwh),
            # Over no time at all nothing was asked either.
            "asked": energy(None if mwh is None else asked),
            "rests on": source,
        }
        for name, mwh, asked, source in accounts
    ]


def day(at: datetime) -> str:
    """Return a moment with its day."""
    return f"{at:%Y-%m-%d %H:%M:%S}Z"


def clock(at: datetime | None) -> str:
    """Return a moment's time of day."""
    return "–" if at is None else f"{at:%H:%M:%S}Z"


def seconds(told: float | None) -> str:
    """Return a time in the unit that reads best."""
    if told is None:
        return "–"
    return f"{told * 1e3:,.0f} ms" if told < 1 else f"{told:,.1f} s"
