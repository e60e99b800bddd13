"""A small typed client of the API, for the command line and for scripts."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote, urlencode

import pyarrow as pa

from kapelle.api.capacity_shapes import CapacityTold
from kapelle.api.connection import LONG_WAIT_S, Connection
from kapelle.api.device_shapes import DevicesTold, DeviceTold, WhyTold
from kapelle.api.energy_shapes import CorrectionsTold, Register, RepairTold
from kapelle.api.envelope_shapes import EnvelopesTold
from kapelle.api.quarantine_shapes import (
    ActionTold,
    MutedList,
    QuarantineCounted,
    QuarantinedTold,
    QuarantineTold,
    UnmutedTold,
)
from kapelle.api.report_shapes import ReportTold
from kapelle.api.shapes import (
    HoldTold,
    OrdersTold,
    OrderTold,
    PreviewTold,
    ResourcesTold,
    ResourceTold,
    SelectionTold,
    StatusTold,
)
from kapelle.api.why_shapes import OrderWhyTold
from kapelle.errors import Invalid, Problem, Unreachable

if TYPE_CHECKING:
    # DuckDB is costly to import, and behind the API.
    from kapelle.history.energy_series import Revision, Span
    from kapelle.history.reader import Series, Step

_URL = "http://127.0.0.1:8080"
_TOKEN_FILE = Path("kapelle-data/api.token")


class Client(Connection):
    """Speaks to one plant; `Connection` says how it fails."""

    def create_order(
        self,
        *,
        target_w: float | None = None,
        profile: list[dict[str, float]] | None = None,
        resource: str = "all",
        duration_s: float | None = None,
        starts_at: str | None = None,
        ends_at: str | None = None,
        tolerance: float = 0.02,
        product: str = "manual",
        why: str = "",
        key: str = "",
        staged: bool | None = None,
        randomise_s: float | None = None,
    ) -> OrderTold:
        """Order a change of power. `key`: sending the same again gives the same order. [W] [s]

        `profile` instead of `target_w` and an end: intervals, each `duration_s` and `target_w`.
        """
        asked = _said(
            target_w=target_w,
            profile=profile,
            resource=resource,
            duration_s=duration_s,
            starts_at=starts_at,
            ends_at=ends_at,
            tolerance=tolerance,
            product=product,
            why=why,
            staged=staged,
            randomise_s=randomise_s,
        )
        return self._ask(OrderTold, "POST", "/v1/orders", asked, _key(key))

    def select_order(
        self,
        *,
        target_w: float,
        resource: str = "all",
        duration_s: float = 900.0,
        starts_at: str | None = None,
        staged: bool | None = None,
        randomise_s: float | None = None,
    ) -> SelectionTold:
        """Keep an order for a second person to operate; say what it would do."""
        asked = _said(
            target_w=target_w,
            resource=resource,
            duration_s=duration_s,
            starts_at=starts_at,
            staged=staged,
            randomise_s=randomise_s,
        )
        return self._ask(SelectionTold, "POST", "/v1/selections", asked)

    def operate_order(self, selection_no: int) -> OrderTold:
        """Give the order that somebody else selected."""
        return self._ask(OrderTold, "POST", f"/v1/selections/{selection_no}/operate")

    def why_order(self, order_no: int) -> OrderWhyTold:
        """Say what bound an order, now and over its life."""
        return self._ask(OrderWhyTold, "GET", f"/v1/orders/{order_no}/why")

    def preview_order(
        self,
        *,
        target_w: float | None = None,
        profile: list[dict[str, float]] | None = None,
        resource: str = "all",
        duration_s: float | None = None,
    ) -> PreviewTold:
        """Say what would be promised now, for 15 minutes unless said; order nothing."""
        asked = _said(
            target_w=target_w,
            profile=profile,
            resource=resource,
            duration_s=900.0 if duration_s is None and profile is None else duration_s,
            dry_run=True,
        )
        return self._ask(PreviewTold, "POST", "/v1/orders", asked)

    def amend_order(
        self,
        order_no: int,
        *,
        target_w: float | None = None,
        profile: list[dict[str, float]] | None = None,
        duration_s: float | None = None,
        ends_at: str | None = None,
    ) -> OrderTold:
        """Change an order's target, end or profile (from now, as `duration_s` is)."""
        asked = _said(target_w=target_w, profile=profile, duration_s=duration_s, ends_at=ends_at)
        return self._ask(OrderTold, "PATCH", f"/v1/orders/{order_no}", asked)

    def cancel_order(self, order_no: int) -> OrderTold:
        """Cancel an order; its devices are released."""
        return self._ask(OrderTold, "DELETE", f"/v1/orders/{order_no}")

    def order(self, order_no: int) -> OrderTold:
        """Return one order."""
        return self._ask(OrderTold, "GET", f"/v1/orders/{order_no}")

    def report(self, order_no: int) -> ReportTold:
        """Return what the long record holds of an order, and whether it delivered."""
        return self._ask(ReportTold, "GET", f"/v1/orders/{order_no}/report", wait_s=LONG_WAIT_S)

    def orders(self, limit: int = 100) -> OrdersTold:
        """Return the newest orders."""
        return self._ask(OrdersTold, "GET", f"/v1/orders?limit={limit}")

    def status(self) -> StatusTold:
        """Return the plant in one answer."""
        return self._ask(StatusTold, "GET", "/v1/status")

    def resources(self) -> ResourcesTold:
        """Return every resource."""
        return self._ask(ResourcesTold, "GET", "/v1/resources")

    def resource(self, name: str) -> ResourceTold:
        """Return one resource."""
        return self._ask(ResourceTold, "GET", f"/v1/resources/{quote(name, safe='')}")

    def capacity(
        self,
        resource: str = "all",
        *,
        window_s: float = 3600.0,
        notice_s: float = 0.0,
        direction: Literal["up", "down", "both"] = "both",
    ) -> CapacityTold:
        """Return what a resource can promise from now on over a window. [s]"""
        asked = {"window_s": window_s, "notice_s": notice_s, "direction": direction}
        path = f"/v1/capacity/{quote(resource, safe='')}"
        return self._ask(CapacityTold, "GET", f"{path}?{urlencode(asked)}")

    def set_envelopes(
        self,
        level: str,
        names: Sequence[str],
        *,
        export_limit_w: float | None = None,
        import_limit_w: float | None = None,
        starts_at: str | None = None,
        duration_s: float | None = None,
    ) -> EnvelopesTold:
        """Limit groups of a level; without any limit take theirs away. [W] [s]"""
        asked = _said(
            level=level,
            names=list(names),
            export_limit_w=export_limit_w,
            import_limit_w=import_limit_w,
            starts_at=starts_at,
            duration_s=duration_s,
        )
        return self._ask(EnvelopesTold, "POST", "/v1/envelopes", asked)

    def envelopes(self, level: str | None = None) -> EnvelopesTold:
        """Return envelopes that are not over, and the configured caps."""
        query = f"?{urlencode({'level': level})}" if level else ""
        return self._ask(EnvelopesTold, "GET", f"/v1/envelopes{query}")

    def hold(self, reason: str = "") -> HoldTold:
        """Stop every command of the plant."""
        return self._ask(HoldTold, "POST", "/v1/hold", {"reason": reason})

    def release_hold(self, reason: str = "") -> HoldTold:
        """Allow commands again."""
        return self._ask(HoldTold, "POST", "/v1/release-hold", {"reason": reason})

    def quarantine(
        self, chosen: Mapping[str, str], *, state: str = "open", limit: int = 100, cursor: str = ""
    ) -> QuarantineTold:
        """Return rows in quarantine, newest first. `chosen`: code, source, device, since, until."""
        asked = {**chosen, "state": state, "limit": str(limit), "cursor": cursor}
        return self._ask(QuarantineTold, "GET", f"/v1/quarantine?{urlencode(asked)}")

    def quarantine_counts(self) -> QuarantineCounted:
        """Count rows in quarantine by reason and source; the muted are named."""
        return self._ask(QuarantineCounted, "GET", "/v1/quarantine/counts")

    def quarantined(self, row_id: str) -> QuarantinedTold:
        """Return one row in quarantine."""
        return self._ask(QuarantinedTold, "GET", f"/v1/quarantine/{quote(row_id, safe='')}")

    def quarantine_action(
        self, action: Literal["replay", "drop"], asked: dict[str, object]
    ) -> ActionTold:
        """Replay or drop rows: `ids` or `filter`, `fix`, `reason`, `author`, `dry_run`."""
        return self._ask(ActionTold, "POST", f"/v1/quarantine/{action}", asked)

    def quarantine_export(
        self, chosen: Mapping[str, str], *, state: str = "any", form: str = "ndjson"
    ) -> Iterator[bytes]:
        """Yield rows in quarantine as NDJSON or CSV, piece by piece."""
        path = f"/v1/quarantine/export?{urlencode({**chosen, 'state': state, 'form': form})}"
        return self._pieces(path)

    def muted(self) -> MutedList:
        """Return devices whose unusable reports are only counted."""
        return self._ask(MutedList, "GET", "/v1/quarantine/muted")

    def unmute(self, devices: Sequence[str]) -> UnmutedTold:
        """Listen to devices again at once."""
        return self._ask(UnmutedTold, "POST", "/v1/quarantine/unmute", {"devices": list(devices)})

    def devices(
        self, filters: Mapping[str, str] | None = None, *, limit: int = 100, after: int = -1
    ) -> DevicesTold:
        """Return devices as they stand now, filtered by `resource`, `kind`, `vendor`,
        `freshness`, `standing`, `condition`, `excluded`."""
        query = {"limit": str(limit), "after": str(after)} | dict(filters or {})
        return DevicesTold.model_validate_json(self._send("GET", "/v1/devices", params=query))

    def device(self, device_id: str) -> DeviceTold:
        """Return one device: desired, reported and observed."""
        return self._ask(DeviceTold, "GET", f"/v1/devices/{quote(device_id, safe='')}")

    def why(self, device_id: str) -> WhyTold:
        """Return why one device does what it does, and what bounds it."""
        return self._ask(WhyTold, "GET", f"/v1/devices/{quote(device_id, safe='')}/why")

    def device_history(
        self,
        device_id: str,
        *,
        step: "Step" = "1m",
        day: str | None = None,
        month: str | None = None,
        since: str | None = None,
        until: str | None = None,
        tz: str = "UTC",
    ) -> pa.Table:
        """Return what a device reported; `.to_pandas()` and `polars.from_arrow` take it further.

        Args:
            device_id: Its name.
            step: As it came (`raw`), or means of 1 or 15 minutes.
            day: A local day of `tz`, `2026-11-22`; or
            month: a local month, `2026-11`; or
            since: from here, RFC 3339 with zone, and
            until: before here.
            tz: IANA name of a zone.
        """
        period = _period(day, month, since, until, tz)
        path = f"/v1/history/devices/{quote(device_id, safe='')}"
        return self._ask_table(path, period | {"step": step})

    def resource_history(
        self,
        name: str = "all",
        *,
        step: "Step" = "15m",
        series: "Series" = "corrected",
        day: str | None = None,
        month: str | None = None,
        since: str | None = None,
        until: str | None = None,
        tz: str = "UTC",
    ) -> pa.Table:
        """Return what a resource did: as `published` at the time, or `corrected`, as known now.

        Its other arguments are those of `device_history`.
        """
        period = _period(day, month, since, until, tz)
        path = f"/v1/history/resources/{quote(name, safe='')}"
        return self._ask_table(path, period | {"step": step, "series": series})

    def energy(
        self,
        device_id: str | None = None,
        *,
        resource: str | None = None,
        step: "Span" = "15m",
        revision: "Revision" = "latest",
        day: str | None = None,
        month: str | None = None,
        since: str | None = None,
        until: str | None = None,
        tz: str = "UTC",
    ) -> pa.Table:
        """Return the ledger's energy of a device or a resource, a row per step and register.

        Args:
            device_id: Of the device; or
            resource: name of the resource.
            step: Quarter-hours, or local days or months of `tz`.
            revision: As known now, as it stood at a revision (0: as first told), or `all` of them.
            day: As of `device_history`.
            month: The same.
            since: The same.
            until: The same.
            tz: IANA name of a zone.

        Raises:
            Invalid: Not one of the two is named.
        """
        if (device_id is None) == (resource is None):
            raise Invalid("whose energy?", [Problem("energy", "name one", "a device or resource")])
        period = _period(day, month, since, until, tz)
        whose = "resources" if device_id is None else "devices"
        path = f"/v1/history/energy/{whose}/{quote(device_id or resource or '', safe='')}"
        return self._ask_table(path, period | {"step": step, "revision": revision})

    def correct_energy(
        self,
        device_id: str,
        register: Register,
        *,
        since: str,
        until: str,
        method: Literal["set", "scale", "interpolate"],
        value: float | None = None,
        reason: str,
        author: str = "",
        dry_run: bool = False,
        key: str = "",
    ) -> RepairTold:
        """Correct energy between two quarter-hours as a new revision, or say what that would do.

        Args:
            device_id: Whose.
            register: Of which register.
            since: From here, RFC 3339 with zone, on a quarter-hour.
            until: Before here.
            method: `set` it to `value` Wh in all, `scale` it by `value`, or `interpolate`.
            value: See there.
            reason: Stays in the ledger.
            author: Yourself, or left out: nobody signs as another.
            dry_run: Change nothing.
            key: Sending the same again changes nothing more.
        """
        asked = _said(
            device_id=device_id,
            register=register,
            to=until,
            method=method,
            value=value,
            reason=reason,
            author=author,
            dry_run=dry_run,
            **{"from": since},
        )
        path = "/v1/energy/corrections"
        return self._ask(RepairTold, "POST", path, asked, _key(key), LONG_WAIT_S)

    def undo_correction(
        self,
        correction_no: int,
        reason: str,
        *,
        author: str = "",
        dry_run: bool = False,
        key: str = "",
    ) -> RepairTold:
        """Take a correction of energy back, or say what that would do."""
        path = f"/v1/energy/corrections/{correction_no}/undo"
        asked = _said(reason=reason, author=author, dry_run=dry_run)
        return self._ask(RepairTold, "POST", path, asked, _key(key), LONG_WAIT_S)

    def corrections(
        self, device_id: str = "", *, limit: int = 100, before: int | None = None
    ) -> CorrectionsTold:
        """Return corrections of energy, newest first."""
        asked = urlencode(_said(device=device_id, limit=limit, before=before))
        return self._ask(CorrectionsTold, "GET", f"/v1/energy/corrections?{asked}")


def connect(url: str | None = None, token: str | None = None) -> Client:
    """Return a client of the plant at `KAPELLE_URL` with `KAPELLE_TOKEN`, or of the one here.

    Raises:
        Unreachable: There is no token to be found.
    """
    found = token or os.environ.get("KAPELLE_TOKEN")
    if not found:
        try:
            found = _TOKEN_FILE.read_text().strip()
        except OSError as error:
            raise Unreachable(f"no KAPELLE_TOKEN, and {_TOKEN_FILE}: {error.strerror}") from error
    return Client(url or os.environ.get("KAPELLE_URL") or _URL, found)


def _key(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key} if key else {}


def _period(
    day: str | None, month: str | None, since: str | None, until: str | None, tz: str
) -> dict[str, object]:
    return _said(day=day, month=month, to=until, tz=tz, **{"from": since})


def _said(**fields: object) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}
