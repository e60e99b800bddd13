"""The mappings of docs/examples/topics.toml, held to payloads shaped as vendors document them."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.adapters.conformance.plant import until
from tests.adapters.topics.worlds import World, play

from kapelle.adapters.topics.settings import TopicsSettings
from kapelle.config import parse
from kapelle.model.blocks import Readings
from kapelle.model.enums import AckStatus, Metric, SessionEvent
from kapelle.model.ids import NS_PER_S

FILE = Path(__file__).parents[3] / "docs" / "examples" / "topics.toml"


def settings() -> TopicsSettings:
    told = parse(FILE.read_text(), {}).config.topics
    assert told is not None
    return told


# shelly-api-docs.shelly.cloud/gen2: Switch, status. With 2 kW, which is what the golden has.
SHELLY = """{"id": 0, "source": "WS_in", "output": true, "apower": 2000, "voltage": 225.9,
 "current": 8.9, "aenergy": {"total": 11.679, "by_minute": [0, 0, 0], "minute_ts": 1654511972},
 "temperature": {"tC": 53.3, "tF": 127.9}}"""
# tasmota.github.io/docs: tele/<topic>/SENSOR of a plug with power monitoring.
TASMOTA = """{"Time": "2021-06-13T06:59:52", "ENERGY": {"TotalStartTime": "2020-12-01T10:53:00",
 "Total": 1.753, "Yesterday": 0.308, "Today": 0.201, "Period": 0, "Power": 2000,
 "ApparentPower": 2010, "ReactivePower": 12, "Factor": 0.99, "Voltage": 234, "Current": 8.7}}"""
# www.zigbee2mqtt.io: what a plug publishes, with `last_seen`.
ZIGBEE = """{"state": "ON", "power": 2000, "energy": 1.753, "voltage": 234, "current": 8.7,
 "linkquality": 120, "last_seen": "2026-01-02T03:04:05.000Z"}"""

CASES = {
    "shelly": ("shelly/plug-1", "plug-1/status/switch:0", SHELLY, {Metric.IMPORT_WH: 11.679}),
    "tasmota": ("tasmota/plug-1", "tele/plug-1/SENSOR", TASMOTA, {Metric.IMPORT_WH: 1753.0}),
    "zigbee2mqtt": ("zigbee2mqtt/plug-1", "zigbee2mqtt/plug-1", ZIGBEE, {Metric.IMPORT_WH: 1753.0}),
    "victron": (
        "victron/c0619ab1",
        "N/c0619ab1/system/0/Dc/Battery/Power",
        '{"value": 2000}',
        {},
    ),
    "evcc": ("evcc/1", "evcc/loadpoints/1/chargePower", "2000", {}),
}  # fmt: skip
ONLINE = {
    "shelly": [("plug-1/online", "true")],
    "tasmota": [("tele/plug-1/LWT", "Online")],
    "zigbee2mqtt": [
        ("zigbee2mqtt/plug-1/availability", '{"state": "online"}'),
        ("zigbee2mqtt/bridge/state", '{"state": "online"}'),
    ],
}
ON_OFF = {
    "shelly": ("plug-1/command/switch:0", "on", "off", "plug-1/status/switch:0", SHELLY),
    "tasmota": ("cmnd/plug-1/POWER", "ON", "OFF", "stat/plug-1/POWER", "ON"),
    "zigbee2mqtt": (
        "zigbee2mqtt/plug-1/set", '{"state": "ON"}', '{"state": "OFF"}', "zigbee2mqtt/plug-1",
        ZIGBEE,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_consumes_2_kw_is_minus_2_kw(name: str, shared: Path) -> None:
    golden = json.loads((shared / "goldens" / "signs.json").read_text())["power_w"]
    address, topic, payload, others = CASES[name]

    async def act(world: World) -> None:
        at = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=10)
        world.say(topic, payload.replace("2026-01-02T03:04:05", f"{at:%Y-%m-%dT%H:%M:%S}"))
        await until(lambda: world.measured(golden))
        (block,) = await world.plant.stored(Readings)
        for metric, value in others.items():
            assert block.values[metric][0] == pytest.approx(value)
        if name == "zigbee2mqtt":
            assert block.measured_at_ns[0] == int(at.timestamp()) * NS_PER_S
        assert await world.plant.reasons() == []

    play(address, act, schemes=settings().schemes)


def test_the_sign_of_a_victron_battery_is_that_of_the_golden(shared: Path) -> None:
    vectors = json.loads((shared / "goldens" / "signs.json").read_text())["vectors"]
    (victron,) = [one for one in vectors if one["protocol"] == "victron-cerbo"]
    (scheme,) = [one for one in settings().schemes if one.name == "victron"]
    power = next(one for one in scheme.values if one.metric == "power_w")
    assert victron["convention"] == "charge positive"
    assert power.positive == "import"


@pytest.mark.parametrize("name", ON_OFF)
def test_a_plug_is_switched_and_shows_it(name: str) -> None:
    topic, on, off, state_topic, state = ON_OFF[name]

    async def act(world: World) -> None:
        for available, word in ONLINE[name]:
            world.say(available, word, retain=True)
        await until(lambda: world.went(SessionEvent.UP))
        assert await world.plant.send(-2_000.0)
        await until(lambda: world.noted.said == [(topic, on)])
        assert await world.plant.answers() == []
        world.say(state_topic, state)

        async def applied() -> bool:
            return await world.plant.answers() == [(1, AckStatus.APPLIED)]

        await until(applied)
        assert await world.plant.send(0.0, revision=2)
        await until(lambda: world.noted.said[1:] == [(topic, off)])
        # It shows that it is still on.
        world.say(state_topic, state)
        assert await world.plant.send(float("nan"), revision=3)
        await until(lambda: world.noted.said[2:] == [(topic, on)])
        assert (2, AckStatus.APPLIED) not in await world.plant.answers()
        # It feeds nothing in.
        assert await world.plant.send(500.0, revision=4)

        async def refused() -> bool:
            return (4, AckStatus.REJECTED) in await world.plant.answers()

        await until(refused)

    play(CASES[name][0], act, schemes=settings().schemes)


def test_a_gx_device_is_asked_so_that_it_goes_on() -> None:
    async def act(world: World) -> None:
        await until(lambda: ("R/c0619ab1/keepalive", "") in world.noted.said)
        # A value that is not there, and a service that went.
        world.say("N/c0619ab1/system/0/Dc/Battery/Power", '{"value": null}')
        world.say("N/c0619ab1/system/0/Dc/Battery/Power", "")
        world.say("N/c0619ab1/system/0/Dc/Battery/Power", '{"value": 936}')
        await until(lambda: world.measured(-936.0))
        assert await world.plant.reasons() == []

    play("victron/c0619ab1", act, schemes=settings().schemes)


def test_a_bridge_that_goes_takes_everybody_with_it() -> None:
    async def act(world: World) -> None:
        for topic, word in ONLINE["zigbee2mqtt"]:
            world.say(topic, word, retain=True)
        await until(lambda: world.went(SessionEvent.UP))
        world.say("zigbee2mqtt/bridge/state", '{"state": "offline"}', retain=True)
        await until(lambda: world.went(SessionEvent.UP, SessionEvent.DOWN))
        assert not await world.plant.send(-1_000.0)

    play("zigbee2mqtt/plug-1", act, schemes=settings().schemes)
