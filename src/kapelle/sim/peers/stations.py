"""Simulated charging stations that speak OCPP 1.6J, each with a connection of its own."""

from dataclasses import replace

from kapelle.adapters.ocpp.settings import OcppSettings
from kapelle.config import Config
from kapelle.model.enums import Metric
from kapelle.sim.peers.callers import Callers
from kapelle.sim.peers.ocpp import ChargePoint
from kapelle.sim.peers.party import Ground, Hearing, Meeting, Party
from kapelle.sim.telemetry import Reports


def configured(config: Config, meeting: Meeting) -> Hearing:
    """See `Side`: simulated stations report at the fleet's cadence, and take watts."""
    settings = OcppSettings(port=0, heartbeat_s=10, sample_s=0, charging_rate_unit="W")
    return Hearing(replace(config, ocpp=settings))


def party(ground: Ground) -> Party:
    """See `Side`."""
    return Stations(ground)


class Stations(Callers[ChargePoint]):
    """The party of charging stations, which answer by themselves."""

    def _made(self, index: int, name: str, secret: str) -> ChargePoint:
        return ChargePoint(index, name, secret, self, now_ns=self._ground.now_ns)

    def say(self, reports: Reports) -> None:
        """See `Party`."""
        power_w = reports.values[Metric.POWER_W].tolist()
        import_wh = reports.values[Metric.IMPORT_WH].tolist()
        for row, watts, wh in zip(reports.rows.tolist(), power_w, import_wh, strict=True):
            self._callers[self._place[row]].measure(watts, wh)
            self._tally.published += 1
