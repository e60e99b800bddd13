"""What a client asks of the long record: what was, the energy of it, and corrections of that."""

from typing import TYPE_CHECKING, Literal
from urllib.parse import quote, urlencode

import pyarrow as pa

from kapelle.api.connection import LONG_WAIT_S, Connection, once, said
from kapelle.api.energy_shapes import CorrectionsTold, Register, RepairTold
from kapelle.errors import Invalid, Problem

if TYPE_CHECKING:
    # DuckDB is costly to import, and behind the API.
    from kapelle.history.energy_series import Revision, Span
    from kapelle.history.reader import Series, Step


class RecordCalls(Connection):
    """The part of `Client` that is about the long record."""

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
        asked = said(
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
        return self._ask(RepairTold, "POST", path, asked, once(key), LONG_WAIT_S)

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
        asked = said(reason=reason, author=author, dry_run=dry_run)
        return self._ask(RepairTold, "POST", path, asked, once(key), LONG_WAIT_S)

    def corrections(
        self, device_id: str = "", *, limit: int = 100, before: int | None = None
    ) -> CorrectionsTold:
        """Return corrections of energy, newest first."""
        asked = urlencode(said(device=device_id, limit=limit, before=before))
        return self._ask(CorrectionsTold, "GET", f"/v1/energy/corrections?{asked}")


def _period(
    day: str | None, month: str | None, since: str | None, until: str | None, tz: str
) -> dict[str, object]:
    return said(day=day, month=month, to=until, tz=tz, **{"from": since})
