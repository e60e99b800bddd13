"""Simulated devices behind a vendor's cloud, which the plant polls: the cloud is played here."""

import os
import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kapelle.adapters.cloud.documents import CloudCommand, CloudPoll, CloudShape, CloudValue
from kapelle.adapters.cloud.settings import CloudAuth, CloudSettings, CloudsSettings
from kapelle.api.service import Api
from kapelle.api.settings import ApiSettings
from kapelle.config import Config
from kapelle.model.blocks import Commands
from kapelle.model.enums import Metric
from kapelle.model.ids import Ints
from kapelle.sim.agents import Answers
from kapelle.sim.peers.party import Ground, Hearing, Meeting, Party, Setpoints, Tally
from kapelle.sim.peers.vendor import VendorCloud
from kapelle.sim.telemetry import Reports

ADAPTER = "cloud"
"""Name of the cloud, under which its devices are enrolled."""
_EVERY_S = 2.0
_POWER = "/batteries/{address}/power"
SHAPE = CloudShape(
    "battery",
    (
        CloudValue("power_w", ("chargeState.chargeRate",), "kW", positive="import"),
        CloudValue("soc", ("chargeState.batteryLevel",), "percent"),
    ),
    id="id",
    time="chargeState.lastUpdated",
    reachable="isReachable",
)


def configured(config: Config, meeting: Meeting) -> Hearing:
    """See `Side`: a cloud that is polled often, with a quota that lets every device be told."""
    token = secrets.token_urlsafe(24)
    file = os.open(_token_file(meeting.directory), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(file, "w") as out:
        out.write(token)
    cloud = CloudSettings(
        name=ADAPTER,
        base_url=f"http://127.0.0.1:{meeting.port}",
        shapes=(SHAPE,),
        polls=(
            CloudPoll(
                "/batteries", "battery", items="data", every_s=_EVERY_S, next="pagination.after"
            ),
        ),
        commands=(
            CloudCommand(_POWER, when="release", method="DELETE"),
            CloudCommand(
                _POWER, '{"kw": "$value", "seconds": "$duration_s"}', unit="kW", positive="import"
            ),
        ),
        auth=CloudAuth("bearer", token=token),
        requests_per_s=200.0,
        requests_burst=200,
        answer_s=4.0,
        noticed_s=5.0,
        retry_s_max=2.0,
    )
    return Hearing(replace(config, clouds=CloudsSettings((cloud,))), meeting.names)


def party(ground: Ground) -> Party:
    """See `Side`."""
    return Clouds(ground)


def _token_file(directory: Path) -> Path:
    return directory / "cloud.token"


class Clouds:
    """The party of devices behind one vendor's cloud."""

    is_read = True

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._setpoints = Setpoints(ground.rows)
        token = _token_file(Path(ground.start.directory)).read_text()
        self._cloud = VendorCloud(ground.names, token, self._setpoints)
        self._assets = dict(zip(ground.rows.tolist(), self._cloud.assets, strict=True))

    async def run(self) -> None:
        """See `Party`."""
        settings = ApiSettings(port=self._ground.start.ports[self._ground.protocol], shutdown_s=0.0)
        await Api(application=self._cloud, watch=None, settings=settings).run()

    def say(self, reports: Reports) -> None:
        """See `Party`: the cloud shows it to whoever asks."""
        now_ns = self._ground.now_ns()
        metrics = (Metric.POWER_W, Metric.SOC)
        columns = [reports.values[metric].tolist() for metric in metrics]
        for row, power_w, soc in zip(reports.rows.tolist(), *columns, strict=True):
            asset = self._assets[row]
            asset.power_w, asset.soc, asset.at_ns = power_w, soc, now_ns

    def answer(self, answers: Answers, at_ns: int) -> None:
        """See `Party`: a cloud says that it has heard, and no more."""

    def take(self, now_ns: int) -> tuple[Ints, Commands]:
        """See `Party`."""
        self._cloud.now_ns = now_ns
        return self._setpoints.take(now_ns)

    def lose(self, rows: Sequence[int], share_deaf: float) -> None:
        """See `Party`. Of some the cloud does not notice; without all of them it is out itself."""
        for row in rows:
            asset = self._assets[row]
            asset.is_deaf = self._ground.rng.random() < share_deaf
            asset.is_reachable = asset.is_deaf
        self._cloud.is_out = not self.connected()

    def bring_back(self, rows: Sequence[int], within_s: float) -> None:
        """See `Party`."""
        for row in rows:
            asset = self._assets[row]
            asset.is_deaf, asset.is_reachable = False, True
        self._cloud.is_out = not self.connected()

    def leave(self) -> None:
        """See `Party`: the cloud goes with its task."""

    def connected(self) -> int:
        """See `Party`: those the cloud reaches."""
        return sum(asset.is_reachable and not asset.is_deaf for asset in self._assets.values())

    def tally(self) -> Tally:
        """See `Party`: what is asked for again is its own affair."""
        return Tally(commands=self._setpoints.count, refused=self._cloud.refused)
