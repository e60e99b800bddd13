"""Simulated gateways that are OpenADR 3.1 VENs: each is one device with its own connection."""

from dataclasses import replace

from kapelle.adapters.openadr.settings import OpenAdrSettings
from kapelle.config import Config
from kapelle.model.enums import Metric
from kapelle.sim.peers.callers import Callers
from kapelle.sim.peers.openadr import Gateway
from kapelle.sim.peers.party import Ground, Hearing, Meeting, Party
from kapelle.sim.telemetry import Reports


def configured(config: Config, meeting: Meeting) -> Hearing:
    """See `Side`: a gateway that says nothing for 10 s is absent; its name is its device's."""
    return Hearing(replace(config, openadr=OpenAdrSettings(port=0, absent_s=10.0)))


def party(ground: Ground) -> Party:
    """See `Side`."""
    return Gateways(ground)


class Gateways(Callers[Gateway]):
    """The party of gateways, which acknowledge with what they report."""

    def _made(self, index: int, name: str, secret: str) -> Gateway:
        return Gateway(index, name, secret, self, now_ns=self._ground.now_ns)

    def say(self, reports: Reports) -> None:
        """See `Party`: it goes with the gateway's next poll."""
        power_w = reports.values[Metric.POWER_W].tolist()
        soc = reports.values[Metric.SOC].tolist()
        for row, watts, share in zip(reports.rows.tolist(), power_w, soc, strict=True):
            self._callers[self._place[row]].measure(watts, share)
            self._tally.published += 1
