"""Whatever is lost, repeated or overtaken on the way: in the end the host knows who is there."""

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kapelle.adapters.inbox import Inbox
from kapelle.adapters.mqtt.counters import Counters
from kapelle.adapters.mqtt.packets import Publish
from kapelle.adapters.sparkplug.host import Host
from kapelle.adapters.sparkplug.settings import SparkplugMetric, SparkplugSettings
from kapelle.model.ids import NS_PER_S
from kapelle.registry.directory import Bearer, Directory
from kapelle.sim.peers.sparkplug import EdgeNode

DEVICES = 3
METRICS = (
    SparkplugMetric("Power", "power_w", "W", "export"),
    SparkplugMetric("Setpoint", "setpoint_w", "W", "export"),
)
STEP_NS = NS_PER_S // 5


class World:
    """A host and an edge node with three devices, and a channel that may be bad."""

    def __init__(self) -> None:
        self.at_ns = NS_PER_S * 1_700_000_000
        bearers = [
            Bearer(n, f"dev-{n}", True, 5e3, 5e3, adapter="sparkplug", address=f"g/e/{n}")
            for n in range(DEVICES)
        ]
        clock: Any = self
        self.host = Host(
            SparkplugSettings(metrics=METRICS, rebirth_s=1.0, reorder_s=0.5, birth_s=1.0),
            inbox=Inbox("sparkplug", clock=clock),
            directory=Directory.build(1, bearers),
            clock=clock,
            counters=Counters(),
        )
        wire: Any = self
        self.host.on_made(wire)
        self.node = EdgeNode(
            "g",
            "e",
            [str(n) for n in range(DEVICES)],
            metrics={"Power": 0.0, "Setpoint": None},
            publish=self._say,
            now_ms=lambda: 0,
        )
        self.fate = "pass"
        self._kept: list[Publish] = []

    def now_ns(self) -> int:
        return self.at_ns

    def publish(self, topic: str, payload: bytes, **_: Any) -> bool:
        """What the host says: to the node, unless the channel is bad or it is not there."""
        if self.fate != "lose" and self.node.is_born:
            for _ in self.node.hear(topic.split("/")[2], "", payload):
                raise AssertionError
        return True

    def acknowledge(self, answers: list[bytes]) -> None:
        """What is acknowledged is of no interest here."""

    def _say(self, topic: str, payload: bytes) -> None:
        packet = Publish(topic, payload, 0, 0)
        fate = self.fate
        if "NDEATH" in topic:
            # A will is at QoS 1, so that it is not lost; nor is it published before what was said.
            self._deliver(self._kept)
            fate = "pass"
        if fate == "keep":
            self._kept.append(packet)
            return
        self._deliver([packet] * {"lose": 0, "pass": 1, "twice": 2}[fate])
        self._deliver(self._kept)

    def _deliver(self, packets: list[Publish]) -> None:
        said, packets[:] = list(packets), []
        for packet in said:
            self.host.on_published(packet, b"", self.at_ns)

    def step(self, deed: str, index: int) -> None:
        self.at_ns += STEP_NS
        if deed == "measure":
            self.node.measure(index, {"Power": 1.0}, 0)
        elif deed == "miss":
            self.node.miss(index, told=True)
        elif deed == "find":
            self.node.find(index)
        elif deed == "die":
            self.node.die()
        elif deed == "come":
            self.node.come()
        self.host.look()

    @property
    def there(self) -> set[int]:
        return {n for n in range(DEVICES) if self.node.is_born and self.node.present[n]}


DEEDS = st.tuples(
    st.sampled_from(["measure", "miss", "find", "die", "come", "wait"]),
    st.integers(0, DEVICES - 1),
    st.sampled_from(["pass", "pass", "lose", "keep", "twice"]),
)


@settings(max_examples=100)
@given(st.lists(DEEDS, max_size=25))
def test_who_is_up_is_who_is_there_once_the_channel_is_good_again(
    story: list[tuple[str, int, str]],
) -> None:
    async def run() -> None:
        world = World()
        for deed, index, fate in story:
            world.fate = fate
            world.step(deed, index)
        world.fate = "pass"
        if not any(world.node.present):
            world.node.find(0)
        # So much was lost that numbers do not agree by chance, which would hide it from any host.
        world.node._seq += 100
        world.step("measure", 0)
        world.fate = "lose"
        for _ in range(8):
            # What the host asks is lost, too.
            world.step("wait", 0)
        world.fate = "pass"
        for _ in range(30):
            for index in range(DEVICES):
                world.step("measure", index)
        assert set(world.host.up) == world.there

    asyncio.run(run())
