"""A small typed client of the API, for the command line and for scripts."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import quote, urlencode

from kapelle.api.capacity_shapes import CapacityTold
from kapelle.api.connection import said
from kapelle.api.device_shapes import DevicesTold, DeviceTold, WhyTold
from kapelle.api.envelope_shapes import EnvelopesTold
from kapelle.api.order_calls import OrderCalls
from kapelle.api.quarantine_shapes import (
    ActionTold,
    MutedList,
    QuarantineCounted,
    QuarantinedTold,
    QuarantineTold,
    UnmutedTold,
)
from kapelle.api.record_calls import RecordCalls
from kapelle.api.shapes import HoldTold, ResourcesTold, ResourceTold, StatusTold
from kapelle.errors import Unreachable

_URL = "http://127.0.0.1:8080"
_TOKEN_FILE = Path("kapelle-data/api.token")


class Client(OrderCalls, RecordCalls):
    """Speaks to one plant; `Connection` says how it fails."""

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
        asked = said(
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
