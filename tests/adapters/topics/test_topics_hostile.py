"""Peers that mean no good, brokers that go, and words that are old: nobody else suffers."""

import asyncio
import json
import time
from typing import Any

import numpy as np
import pytest
from tests.adapters.broker import mosquitto
from tests.adapters.conformance.plant import enrolled, opened, until
from tests.adapters.topics.trial import scheme
from tests.adapters.topics.worlds import Noted, World, play

from kapelle.adapters.topics.endpoint import TopicsEndpoint
from kapelle.adapters.topics.settings import (
    TopicAvailability,
    TopicCommand,
    TopicDiscovery,
    TopicEntity,
    TopicScheme,
    TopicsSettings,
    TopicValue,
)
from kapelle.errors import LinkLost
from kapelle.model.blocks import Commands
from kapelle.model.enums import AckStatus, SessionEvent
from kapelle.model.ids import NS_PER_S
from kapelle.registry.directory import Bearer, Directory
from kapelle.runtime.clock import SystemClock
from kapelle.sim.peers.broker import Broker

UP, DOWN = SessionEvent.UP, SessionEvent.DOWN
PLAIN = TopicScheme("plain", (TopicValue("p/{device}", "power_w", "W", positive="export"),))
TIMED = TopicScheme(
    "timed", (TopicValue("t/{device}", "power_w", "W", "w", "export", "at", "unix"),)
)
ENTITIES = (
    TopicEntity("power_w", device_class="power", positive="export"),
    TopicEntity("setpoint_w", component="number", positive="export", release="0"),
)
DISCOVERY = TopicDiscovery(ENTITIES)
POWER = {
    "stat_t": "x/p", "uniq_id": "p", "dev_cla": "power", "unit_of_meas": "W", "dev": {"ids": "i"},
}  # fmt: skip
PLACE = "homeassistant/sensor/p/config"


def announce(world: World, topic: str = PLACE, **given: Any) -> None:
    world.say(topic, json.dumps({**POWER, **given}), retain=True)


def test_what_the_broker_kept_is_not_fresh_unless_it_says_when() -> None:
    def before(broker: Broker) -> None:
        broker.publish("p/d", b"500", 1, retain=True)

    async def act(world: World) -> None:
        world.say("p/d", "700", retain=True)
        await until(lambda: world.measured(700.0))
        assert await world.went(UP)

    play("plain/d", act, before=before, schemes=(PLAIN,))
    at = time.time() - 5

    def kept(broker: Broker) -> None:
        broker.publish("t/d", json.dumps({"w": 500, "at": at}).encode(), 1, retain=True)

    async def timed(world: World) -> None:
        await until(lambda: world.measured(500.0))
        # It was said by nobody now.
        assert await world.plant.events() == []

    play("timed/d", timed, before=kept, schemes=(TIMED,))


def test_a_value_without_its_time_is_named_where_it_should_have_one() -> None:
    async def act(world: World) -> None:
        world.say("t/d", '{"w": 500}')
        await until(lambda: world.named("time-missing: at"))
        assert await world.plant.power_w() == []

    play("timed/d", act, schemes=(TIMED,))


def test_oversize_and_broken_payloads_are_kept_with_a_reason_and_the_next_one_counts() -> None:
    async def act(world: World) -> None:
        world.say("p/d", b"1" * 70_000)
        world.say("p/d", b"\xff\xfe")
        world.say("p/d", "on")
        world.say("p/d", "5")
        await until(lambda: world.measured(5.0))
        await until(
            lambda: world.named("payload-size: p/d", "text: payload", "value-type: payload")
        )

    play("plain/d", act, schemes=(PLAIN,))


def test_a_flood_of_strangers_names_each_once_and_holds_nobody_up() -> None:
    async def act(world: World) -> None:
        for turn in range(3_000):
            world.say(f"p/stranger-{turn % 20}", "1")
        world.say("p/d", "5")
        await until(lambda: world.measured(5.0))
        reasons = await world.plant.reasons()
        assert len(reasons) == 20
        assert "stranger: plain/stranger-7: is not enrolled; enrol it with this address" in reasons

    play("plain/d", act, schemes=(PLAIN,))


def test_two_schemes_may_read_one_topic_and_each_device_its_own_part() -> None:
    other = TopicScheme("other", (TopicValue("p/{device}", "power_w", "kW", positive="import"),))

    async def act(world: World) -> None:
        world.say("p/d", "5")
        await until(lambda: world.measured(-5_000.0))
        assert await world.plant.reasons() == []

    play("other/d", act, schemes=(PLAIN, other))


def test_an_address_that_names_no_scheme_is_told() -> None:
    async def act(world: World) -> None:
        await until(lambda: world.named("address: nothing/d: names no scheme"))

    play("nothing/d", act, schemes=(PLAIN,))


def test_who_does_not_come_in_time_is_gone() -> None:
    async def act(world: World) -> None:
        await until(lambda: world.went(DOWN))
        world.say("p/d", "5")
        await until(lambda: world.went(DOWN, UP))

    play("plain/d", act, schemes=(PLAIN,), settle_s=0.1)


def test_a_broker_that_goes_takes_everybody_with_it_at_once() -> None:
    async def act(world: World) -> None:
        world.say("p/d", "5")
        await until(lambda: world.went(UP))
        world.broker.cut()
        await until(lambda: world.went(UP, DOWN))
        assert not await world.plant.send(-1_000.0)

    play("plain/d", act, schemes=(PLAIN,))


def test_an_echo_of_something_else_or_too_late_is_no_evidence() -> None:
    async def act(world: World) -> None:
        world.say("x/bat/online", "true", retain=True)
        await until(lambda: world.went(UP))
        assert await world.plant.send(-2_000.0)
        await until(lambda: len(world.noted.said) == 1)
        for payload in ("1.9", "auto", "[2]", "true", ""):
            world.say("x/bat/is-set", payload)
        await asyncio.sleep(0.3)
        world.say("x/bat/is-set", "2")
        world.say("x/bat/state", '{"grid": {"kw": 1}}')
        await until(lambda: world.measured(-1_000.0))
        assert await world.plant.answers() == []

    play("battery/bat", act, schemes=(scheme("x"),), echo_s=0.2)


def test_more_commands_than_the_broker_may_leave_unanswered_wait_for_their_turn() -> None:
    async def run() -> None:
        noted = Noted()
        broker = Broker(noted)
        bearers = [
            Bearer(
                number,
                f"d-{number}",
                True,
                5e3,
                5e3,
                b"",
                adapter="topics",
                address=f"battery/{number}",
            )
            for number in range(50)
        ]
        directory = Directory.build(1, bearers)
        async with asyncio.timeout(60), broker.serve():
            settings = TopicsSettings(
                port=broker.port, schemes=(scheme("x"),), commands_inflight_max=1
            )
            endpoint = TopicsEndpoint(settings=settings, directory=directory, clock=SystemClock())
            async with opened(endpoint, directory) as plant:
                for number in range(50):
                    broker.publish(f"x/{number}/online", b"true", 1, retain=True)
                await until(lambda: endpoint.counters.sessions == 50)
                filled = {name: np.zeros(50, kind) for name, kind in Commands.COLUMNS.items()}
                filled["device_no"][:] = np.arange(50)
                filled["revision"][:] = 1
                filled["setpoint_w"][:] = -1_000.0
                filled["not_after_ns"][:] = plant.clock.now_ns() + 60 * NS_PER_S
                assert (await plant.link.send(Commands(**filled))).all()
                await until(lambda: len(noted.said) == 50)

    asyncio.run(run())


def test_wrong_credentials_lose_the_link_with_its_reason(tmp_path: Any) -> None:
    (tmp_path / "passwords").touch()
    lines = ("allow_anonymous false", f"password_file {tmp_path / 'passwords'}")

    async def run() -> None:
        directory = enrolled("topics", "plain/d")
        async with asyncio.timeout(30), mosquitto(*lines) as port:
            settings = TopicsSettings(
                port=port, schemes=(PLAIN,), username="kapelle", password="wrong"
            )
            endpoint = TopicsEndpoint(settings=settings, directory=directory, clock=SystemClock())
            with pytest.raises(LinkLost, match="refused the connection"):
                async with opened(endpoint, directory):
                    raise AssertionError

    asyncio.run(run())


def test_announcements_that_cannot_be_meant_are_named() -> None:
    async def act(world: World) -> None:
        announce(world, val_tpl="{{ -value }}")
        await until(lambda: world.named("template: '{{ -value }}': is no plain value"))
        announce(world, unit_of_meas="VA")
        await until(lambda: world.named("unit: p: unit of power_w is one of"))
        announce(world, stat_t="#")
        await until(lambda: world.named("topic: p: has no usable state_topic"))
        announce(world, avty=[{"t": "a/+"}])
        await until(lambda: world.named("topic: availability"))
        announce(world, dev_cla="voltage")
        await until(lambda: world.named("unmapped: i: nothing says what p mean"))
        world.say(PLACE, "{", retain=True)
        await until(lambda: world.named("body: document: is no usable JSON"))
        announce(world)
        announce(world, "homeassistant/sensor/q/config", uniq_id="q", stat_t="x/q")
        await until(lambda: world.named("clash: q: power_w is another entity's already"))

        async def heard() -> bool:
            world.say("x/q", "7")
            world.say("x/p", "5")
            return 5.0 in await world.plant.power_w()

        await until(heard)
        assert 7.0 not in await world.plant.power_w()

    play("homeassistant/i", act, discovery=DISCOVERY)


def test_an_entity_that_moves_or_goes_is_followed() -> None:
    async def act(world: World) -> None:
        announce(world)

        async def heard(topic: str, power_w: float) -> bool:
            world.say(topic, str(power_w))
            return power_w in await world.plant.power_w()

        await until(lambda: heard("x/p", 1.0))
        announce(world, stat_t="y/p")
        await until(lambda: heard("y/p", 2.0))
        world.say("x/p", "3")
        world.say(PLACE, "", retain=True)
        world.say("y/p", "4")
        await until(lambda: heard_nothing_since(world))
        assert {3.0, 4.0}.isdisjoint(await world.plant.power_w())

    async def heard_nothing_since(world: World) -> bool:
        # Taken in order: what was published before this has been heard.
        announce(world, "homeassistant/sensor/p/config", val_tpl="{% x %}")
        return await world.named("template: '{% x %}'")

    play("homeassistant/i", act, discovery=DISCOVERY)


def test_a_setpoint_beyond_what_a_number_takes_is_refused_and_named() -> None:
    async def act(world: World) -> None:
        number = {"uniq_id": "n", "cmd_t": "x/set", "stat_t": "x/n", "min": -1_000, "max": 1_000}
        announce(world, "homeassistant/number/n/config", **number)
        announce(world, avty_t="x/online")
        await asyncio.sleep(0)

        async def online() -> bool:
            world.say("x/online", "online")
            return await world.went(UP)

        await until(online)
        assert await world.plant.send(-2_000.0)

        async def refused() -> bool:
            return (1, AckStatus.REJECTED) in await world.plant.answers()

        await until(refused)
        assert await world.plant.send(-900.0, revision=2)
        await until(lambda: world.noted.said == [("x/set", "-900")])

    play("homeassistant/i", act, discovery=DISCOVERY)


def test_announcements_beyond_the_bound_are_not_remembered() -> None:
    async def act(world: World) -> None:
        for number in range(50):
            announce(world, f"homeassistant/sensor/{number}/config", dev={"ids": f"s-{number}"})
        announce(world)
        world.say("x/p", "1")
        await until(lambda: world.named("stranger: homeassistant/s-0"))
        await asyncio.sleep(0.3)
        world.say("x/p", "2")
        await asyncio.sleep(0.1)
        assert await world.plant.power_w() == []

    play("homeassistant/i", act, discovery=TopicDiscovery(ENTITIES, announced_max=10))


def test_the_birth_message_is_said_only_where_it_was_asked_for() -> None:
    async def silent(world: World) -> None:
        announce(world)
        await until(lambda: world.endpoint.counters.publications > 0)
        assert world.noted.said == []

    async def born(world: World) -> None:
        await until(lambda: world.noted.said == [("homeassistant/status", "online")])

    play("homeassistant/i", silent, discovery=DISCOVERY)
    play("homeassistant/i", born, discovery=TopicDiscovery(ENTITIES, birth=True))


@pytest.mark.parametrize(
    "made",
    [
        lambda: TopicValue("p/{device}", "power_w", "W"),
        lambda: TopicValue("p/{device}", "soc", "percent", positive="import"),
        lambda: TopicValue("p/+/x", "soc", "percent"),
        lambda: TopicValue("p/a-{device}", "soc", "percent"),
        lambda: TopicValue("{device}/{device}", "soc", "percent"),
        lambda: TopicCommand("p/{device}", "$value"),
        lambda: TopicCommand("p/{device}", "on", positive="import"),
        lambda: TopicCommand("p/{device}", "$value", "release", positive="import"),
        lambda: TopicAvailability("p", "x", "x"),
        lambda: TopicScheme("plain"),
        lambda: TopicScheme("homeassistant", PLAIN.values),
        lambda: TopicScheme("plain", (TopicValue("p/x", "soc", "percent"),)),
        lambda: TopicScheme("plain", (*PLAIN.values, *PLAIN.values)),
        lambda: TopicScheme("p", PLAIN.values, commands=(TopicCommand("p/{device}", "on"),)),
        lambda: TopicEntity("power_w"),
        lambda: TopicEntity("setpoint_w", component="number", positive="import"),
        lambda: TopicEntity("soc", component="switch"),
        lambda: TopicEntity("watts"),
        lambda: TopicsSettings(),
        lambda: TopicsSettings(schemes=(PLAIN, PLAIN)),
        lambda: TopicsSettings(schemes=(PLAIN,), session_expiry_s=60),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(made: Any) -> None:
    with pytest.raises(ValueError):
        made()
