"""Simulated devices on MQTT topics of their own, on a broker of theirs."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from math import nan

import msgspec

from kapelle.adapters.topics.settings import (
    TopicAvailability,
    TopicCommand,
    TopicScheme,
    TopicsSettings,
    TopicValue,
)
from kapelle.config import Config
from kapelle.model.blocks import Commands
from kapelle.model.enums import AckStatus, Metric
from kapelle.model.ids import Ints
from kapelle.sim.agents import NEVER_NS, Answers
from kapelle.sim.peers.broker import Broker
from kapelle.sim.peers.party import Ground, Hearing, Meeting, Party, Setpoints, Tally
from kapelle.sim.telemetry import Reports

_STATE = "home/{device}/state"
_SET = "home/{device}/set"
_RELEASE = "auto"
_MEASURED = {
    "power": Metric.POWER_W,
    "soc": Metric.SOC,
    "export": Metric.EXPORT_WH,
    "import": Metric.IMPORT_WH,
}
SCHEME = TopicScheme(
    "home",
    values=(
        # They count consumption upwards, so that a sign that is not turned shows.
        TopicValue(_STATE, "power_w", "W", "power", "import", "at", "unix-ms"),
        TopicValue(_STATE, "soc", "fraction", "soc", time="at", time_form="unix-ms"),
        TopicValue(_STATE, "export_wh", "Wh", "export", time="at", time_form="unix-ms"),
        TopicValue(_STATE, "import_wh", "Wh", "import", time="at", time_form="unix-ms"),
    ),
    availability=(TopicAvailability("home/{device}/online", "true", "false"),),
    commands=(
        TopicCommand(_SET, _RELEASE, "release", echo=_RELEASE),
        TopicCommand(_SET, "$value", positive="import", echo="$value"),
    ),
    state_topic="home/{device}/setpoint",
)


def configured(config: Config, meeting: Meeting) -> Hearing:
    """See `Side`: the plant calls their broker."""
    settings = TopicsSettings(port=meeting.port, schemes=(SCHEME,))
    return Hearing(
        replace(config, topics=settings), tuple(f"{SCHEME.name}/{name}" for name in meeting.names)
    )


def party(ground: Ground) -> Party:
    """See `Side`."""
    return Topics(ground)


class Topics:
    """The party of devices on topics. Listener of their broker."""

    is_read = False

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._setpoints = Setpoints(ground.rows)
        self._tally = Tally()
        self._broker = Broker(self)
        self._told: dict[int, tuple[int, str]] = {}
        """By row: number and payload of the setpoint a device was given last."""
        names, rows = ground.names, ground.rows.tolist()
        self._name = dict(zip(rows, names, strict=True))
        self._index = {name: index for index, name in enumerate(names)}
        self._heard = {row: bool(secret) for row, secret in zip(rows, ground.secrets, strict=True)}
        """Whether the broker hears a device. Of one that went without notice it does not know."""

    async def run(self) -> None:
        """See `Party`."""
        async with self._broker.serve(self._ground.start.ports[self._ground.protocol]):
            for row in [row for row, is_here in self._heard.items() if is_here]:
                self._come(row)
            await asyncio.Event().wait()

    def say(self, reports: Reports) -> None:
        """See `Party`."""
        columns = [reports.values[metric].tolist() for metric in _MEASURED.values()]
        at_ms = (reports.at_ns // 1_000_000).tolist()
        for row, time_ms, power_w, *others in zip(
            reports.rows.tolist(), at_ms, *columns, strict=True
        ):
            if self._heard[row]:
                told = dict(zip(_MEASURED, (-power_w, *others), strict=True))
                # NaN, which a device has no value for, is the only value that differs from itself.
                said = {name: value for name, value in told.items() if value == value}
                payload = msgspec.json.encode({"at": time_ms, **said})
                self._broker.publish(_STATE.format(device=self._name[row]), payload)
                self._tally.published += 1

    def answer(self, answers: Answers, at_ns: int) -> None:
        """See `Party`: a setpoint that is applied shows as the device's own."""
        applied = answers.where(answers.status == AckStatus.APPLIED)
        for row, revision in zip(applied.rows.tolist(), applied.revision.tolist(), strict=True):
            number, payload = self._told[row]
            if revision == number and self._heard[row]:
                topic = SCHEME.state_topic.format(device=self._name[row])
                self._broker.publish(topic, payload.encode())

    def take(self, now_ns: int) -> tuple[Ints, Commands]:
        """See `Party`."""
        return self._setpoints.take(now_ns)

    def lose(self, rows: Sequence[int], share_deaf: float) -> None:
        """See `Party`: of the deaf the broker has not noticed yet that they are gone."""
        for row in rows:
            self._heard[row] = False
            if self._ground.rng.random() >= share_deaf:
                self._say_online(row, "false")

    def bring_back(self, rows: Sequence[int], within_s: float) -> None:
        """See `Party`."""
        for row in rows:
            delay_s = self._ground.rng.uniform(0.0, within_s)
            asyncio.get_running_loop().call_later(delay_s, self._come, row)

    def leave(self) -> None:
        """See `Party`."""
        for row in self._heard:
            self._say_online(row, "false")

    def connected(self) -> int:
        """See `Party`."""
        return sum(self._heard.values()) if self._broker.connected else 0

    def tally(self) -> Tally:
        """See `Party`."""
        return replace(self._tally, forgotten=self._broker.dropped, commands=self._setpoints.count)

    # What the broker calls.

    def on_published(self, topic: str, payload: bytes) -> None:
        """Take a command."""
        text = payload.decode()
        try:
            index = self._index[topic.split("/")[1]]
            setpoint_w = nan if text == _RELEASE else -float(text)
        except (KeyError, ValueError):
            self._tally.unreadable += 1
            return
        row = int(self._ground.rows[index])
        if self._heard[row]:
            # Numbers count upwards from 1, as `Setpoints` gives them.
            self._told[row] = self._setpoints.count + 1, text
            self._setpoints.on_setpoint(index, setpoint_w, NEVER_NS)

    def on_acked(self, waited_s: float) -> None:
        """Nothing follows: what they say is published at QoS 0."""

    def _come(self, row: int) -> None:
        self._heard[row] = True
        self._tally.connects += 1
        self._say_online(row, "true")

    def _say_online(self, row: int, word: str) -> None:
        topic = SCHEME.availability[0].topic.format(device=self._name[row])
        self._broker.publish(topic, word.encode(), 1, retain=True)
