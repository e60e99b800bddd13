"""What the Sparkplug specification 3.0.0 demands of a host, by the ids of its compatibility kit."""

import asyncio
import json
import math
import time

import pytest
from tests.adapters.conformance.plant import until
from tests.adapters.sparkplug.watched import METRICS, STATE, Watched, World, play

from kapelle.adapters.mqtt.packets import Connect, Publish
from kapelle.adapters.mqtt.reader import Property
from kapelle.adapters.sparkplug import codec
from kapelle.adapters.sparkplug.codec import BOOLEAN, DOUBLE, REBIRTH, Metric, Payload
from kapelle.adapters.sparkplug.settings import SparkplugSettings
from kapelle.model.enums import AckStatus, SessionEvent
from kapelle.sim.peers.sparkplug import INT64, metric, payload

UP, DOWN = SessionEvent.UP, SessionEvent.DOWN


def state(said: Publish) -> tuple[bool, int]:
    read = json.loads(said.payload)
    assert read.keys() == {"online", "timestamp"}
    assert (said.topic, said.qos, said.retain) == (STATE, 1, True)
    assert abs(read["timestamp"] - time.time() * 1_000) < 60_000
    return read["online"], read["timestamp"]


def will(connect: Connect) -> tuple[bool, int]:
    found = connect.will
    assert found is not None
    return state(Publish(found.topic, found.payload, found.qos, 1, found.retain))


def only(said: Publish) -> Metric:
    """Return the one metric of a command, which nobody must keep."""
    assert (said.qos, said.retain) == (0, False)
    read = codec.decode(said.payload)
    assert isinstance(read, Payload)
    (found,) = read.metrics
    assert abs(found.timestamp_ms - time.time() * 1_000) < 60_000
    return found


@pytest.mark.parametrize("version", [4, 5])
def test_its_session_is_clean_and_has_a_will(version: int) -> None:
    """Ids: message-flow-phid-sparkplug-clean-session-311, -50; host-topic-phid-death-required,
    -topic, -payload, -payload-timestamp-connect, -qos, -retain."""

    async def act(world: World) -> None:
        (connect,) = [said for said in world.broker.said if isinstance(said, Connect)]
        assert connect.clean
        assert not connect.properties.get(Property.SESSION_EXPIRY, 0)
        assert not will(connect)[0]

    play(act, version=version)
    with pytest.raises(ValueError, match="session_expiry_s"):
        SparkplugSettings(metrics=METRICS, session_expiry_s=60)


def test_it_subscribes_and_then_says_first_of_all_that_it_is_there() -> None:
    """Ids: message-flow-phid-sparkplug-subscription, -state-publish,
    -state-publish-payload-timestamp; host-topic-phid-birth-message, -sub-required, -topic,
    -payload, -payload-timestamp, -qos, -retain; state-with-multiple-servers-state."""

    async def act(world: World) -> None:
        connect, *rest = world.broker.said
        assert isinstance(connect, Connect)
        filters = [said for said in rest if isinstance(said, str)]
        assert rest[: len(filters)] == filters
        assert STATE in filters
        assert "spBv1.0/+/NBIRTH/+" in filters
        birth = rest[len(filters)]
        assert isinstance(birth, Publish)
        assert state(birth) == (True, will(connect)[1])

    play(act)


def test_it_says_that_it_goes() -> None:
    """Ids: host-topic-phid-death-payload-timestamp-disconnect-clean;
    operational-behavior-host-application-termination, -death-topic, -payload, -qos, -retained."""

    async def act(world: World) -> None:
        pass

    def after(broker: Watched) -> None:
        *_, last = broker.said
        assert isinstance(last, Publish)
        assert not state(last)[0]

    play(act, after)


def test_told_that_it_is_gone_it_says_that_it_is_there() -> None:
    """Id: message-flow-hid-sparkplug-state-message-delivered."""

    async def act(world: World) -> None:
        (birth,) = world.broker.of("STATE")
        world.broker.publish(STATE, codec.encode_state(False, 1), 1, retain=True)
        await until(lambda: len(world.broker.of("STATE")) == 2)
        assert state(world.broker.of("STATE")[-1]) == state(birth)

    play(act)


def test_it_asks_for_a_birth_with_true() -> None:
    """Ids: operational-behavior-data-commands-ncmd-rebirth-verb, -name, -value;
    payloads-ncmd-qos, -retain, -timestamp."""

    async def act(world: World) -> None:
        await until(lambda: world.broker.of("NCMD"))
        asked = world.broker.of("NCMD")[0]
        assert asked.topic == "spBv1.0/g/NCMD/e"
        found = only(asked)
        assert (found.name, found.datatype, found.value) == (REBIRTH, BOOLEAN, True)

    play(act)


def test_it_writes_what_a_birth_named_in_its_type() -> None:
    """Ids: operational-behavior-data-commands-dcmd-verb, -metric-name, -metric-value;
    payloads-dcmd-qos, -retain, -timestamp."""

    async def act(world: World) -> None:
        await world.comes()
        assert await world.plant.send(1_500.0)
        await until(lambda: world.broker.of("DCMD"))
        (said,) = world.broker.of("DCMD")
        assert said.topic == "spBv1.0/g/DCMD/e/d"
        found = only(said)
        assert (found.name, found.datatype, found.value) == ("Setpoint", DOUBLE, 1_500.0)
        # Born anew without the metric: there is nothing to write to.
        world.say("DBIRTH", payload(0, [metric(5.0, 0, name="Power")], 2))

        async def heard() -> bool:
            return 5.0 in await world.plant.power_w()

        await until(heard)
        assert await world.plant.send(1_600.0, revision=2)

        async def refused() -> bool:
            return (2, AckStatus.REJECTED) in await world.plant.answers()

        await until(refused)
        assert len(world.broker.of("DCMD")) == 1

    play(act)


def test_what_is_late_is_waited_for_and_what_is_lost_asked_for() -> None:
    """Ids: operational-behavior-host-reordering-param, -start, -success, -rebirth."""

    async def act(world: World) -> None:
        await world.comes()
        asked = len(world.broker.of("NCMD"))
        for seq in (3, 2, 4):
            world.say("DDATA", payload(0, [metric(float(seq), 0, name="Power")], seq))

        async def heard(power_w: float) -> bool:
            return power_w in await world.plant.power_w()

        await until(lambda: heard(4.0))
        await asyncio.sleep(0.7)
        assert len(world.broker.of("NCMD")) == asked
        begun_s = time.monotonic()
        world.say("DDATA", payload(0, [metric(6.0, 0, name="Power")], 6))
        await until(lambda: len(world.broker.of("NCMD")) > asked)
        assert time.monotonic() - begun_s >= 0.5
        # A message that was lost is no reason to lose a device.
        assert await world.went(UP)

    play(act, reorder_s=0.5, rebirth_s=0.1)


def test_a_death_takes_down_whom_it_speaks_of_at_once() -> None:
    """Ids: operational-behavior-edge-node-termination-host-action-ndeath-node-offline,
    -ndeath-devices-offline, -ddeath-devices-offline; the NDEATH is that of its NBIRTH's bdSeq."""

    async def act(world: World) -> None:
        await world.comes()
        world.say("NDEATH", payload(0, [metric(9, 0, name="bdSeq", datatype=INT64)]))
        assert await world.plant.send(1.0)
        world.node.miss(0, told=True)
        await until(lambda: world.went(UP, DOWN))
        world.node.find(0)
        await until(lambda: world.went(UP, DOWN, UP))
        world.node.die()
        await until(lambda: world.went(UP, DOWN, UP, DOWN))
        assert not await world.plant.send(1.0, revision=2)

    play(act)


def test_with_the_broker_everybody_behind_it_is_lost() -> None:
    """All metric data behind a broker is STALE when the host loses it (5, no id)."""

    async def act(world: World) -> None:
        await world.comes()
        world.broker.cut()
        await until(lambda: world.went(UP, DOWN))
        assert world.endpoint.counters.sessions == 0
        assert not await world.plant.send(1.0)

    play(act)


def test_who_is_asked_and_not_born_in_time_is_gone() -> None:
    async def act(world: World) -> None:
        # An earlier connection may have left it as present, and it says nothing.
        await until(lambda: world.went(DOWN))
        world.node.come()
        await until(lambda: world.went(DOWN, UP))
        # Of its node a message is missing, and that gives no birth when it is asked.
        world.say("DDATA", payload(0, [metric(7.0, 0, name="Power")], 9))
        await until(lambda: world.went(DOWN, UP, DOWN))
        # What it measures counts all the same.
        world.say("DDATA", payload(0, [metric(8.0, 0, name="Power")], 10))

        async def heard() -> bool:
            return 8.0 in await world.plant.power_w()

        await until(heard)
        world.node.come()
        await until(lambda: world.went(DOWN, UP, DOWN, UP))
        # The node is born again on the same connection, and the device is not.
        born = metric(0, 0, name="bdSeq", datatype=INT64)
        world.say("NBIRTH", payload(0, [born], 0))
        assert await world.plant.send(math.nan)
        await until(lambda: world.went(DOWN, UP, DOWN, UP, DOWN))

    play(act, reorder_s=0.0, birth_s=0.3, rebirth_s=0.2)


def test_what_a_broker_kept_of_an_edge_node_is_no_birth() -> None:
    """Ids payloads-nbirth-retain, payloads-dbirth-retain: nodes must not have it kept."""

    async def act(world: World) -> None:
        assert world.endpoint.counters.publications == 0
        await world.comes()

    def before(broker: Watched) -> None:
        birth = payload(1, [metric(0, 1, name="bdSeq", datatype=INT64)], 0)
        broker.publish("spBv1.0/g/NBIRTH/e", birth, retain=True)

    play(act, before=before)
