"""Raw rows come back as they were sent, or mended; garbage never raises, and keeps a reason."""

import asyncio
import json
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.adapters.mqtt.codec import decode_telemetry
from kapelle.adapters.replay.codec import Again, Item, decode
from kapelle.adapters.replay.fix import METRICS, Fix
from kapelle.adapters.replay.link import Replay, ReplayFull
from kapelle.model.enums import Metric, Quality
from kapelle.model.ids import NS_PER_S

NOW = 1_790_000_000 * NS_PER_S


class Names:
    """Devices a and b; nobody else."""

    partitions = 2
    version = 0

    def resolve(self, names: Sequence[str]) -> np.ndarray:
        return np.array([{"a": 4, "b": 7}.get(name, -1) for name in names], np.int32)


def again(raw: bytes, fix: Fix | None = None, source: str = "mqtt/a", device_no: int = 4) -> Again:
    item = Item("0:1:0", source, device_no, NOW - 5, raw)
    (one,) = decode([item], fix or Fix(), Names(), NOW, 45 * 86_400.0)  # type: ignore[arg-type]  # a stand-in for the directory
    return one


fixes = st.builds(
    Fix,
    scale=st.dictionaries(st.sampled_from([*METRICS, "at_ns"]), st.floats(-10, 10), max_size=2),
    negate_power=st.booleans(),
    device=st.sampled_from(["", "b", "nobody"]),
    drop=st.lists(st.sampled_from([*METRICS, "x"]), max_size=2),
)


@given(
    st.binary(max_size=60) | st.text(max_size=60).map(str.encode)
    | st.recursive(st.none() | st.integers() | st.text(max_size=5) | st.floats(),
                   lambda part: st.lists(part) | st.dictionaries(st.sampled_from(
                       ["power_w", "soc", "at", "readings", "device"]), part), max_leaves=8)
    .map(lambda told: json.dumps(told).encode()),
    fixes, st.sampled_from(["mqtt", "mqtt/a", "http/api", "http/a", "sim", ""]),
    st.sampled_from([-1, 4]),
)  # fmt: skip
def test_garbage_never_raises(raw: bytes, fix: Fix, source: str, device_no: int) -> None:
    found = again(raw, fix, source, device_no)
    assert (found.readings is None) == bool(found.reason)
    if found.readings is not None:
        assert len(found.readings) > 0
        assert (found.readings.quality == Quality.REPLAYED).all()
        assert (found.readings.received_at_ns == NOW - 5).all()


@given(st.floats(-1e6, 1e6), st.integers(1, 10**6), st.integers(0, 99), st.integers(0, 99))
def test_without_a_fix_it_reads_as_the_first_time(
    power_w: float, age_s: int, boot: int, seq: int
) -> None:
    at_ns = NOW - age_s * NS_PER_S
    raw = json.dumps({"at_ns": at_ns, "power_w": power_w, "boot": boot, "seq": seq}).encode()
    first = decode_telemetry([raw])
    for source in ("mqtt", "broker/a", "http/a"):
        readings = again(raw, source=source).readings
        assert readings is not None
        assert readings.device_no.tolist() == [4]
        assert readings.order.tolist() == first.order.tolist()
        assert readings.measured_at_ns.tolist() == [at_ns]
        assert readings.received_at_ns.tolist() == [NOW - 5], "as it came, not as it is replayed"
        assert readings.quality.tolist() == [Quality.REPLAYED]
        assert readings.values[Metric.POWER_W].tolist() == [power_w]


@pytest.mark.parametrize(
    ("raw", "fix", "expected"),
    [
        (b'{"power_w":3e6}', Fix(scale={"power_w": 0.001}), 3000.0),
        (b'{"power_w":3000}', Fix(negate_power=True), -3000.0),
        (b'{"power_w":3e6}', Fix(scale={"power_w": 0.001}, negate_power=True), -3000.0),
        (b'{"power_w":7,"soc":NaN}', Fix(drop=["soc"]), 7.0),
        (b'{"power_w":7,"soc":1,"soc":2}', Fix(drop=["soc"]), 7.0),
        (b"{cut", Fix(payload='{"power_w":7}'), 7.0),
        (b'{"readings":[{"power_w":2}]}', Fix(scale={"power_w": 10}), 20.0),
        (b'[{"power_w":2}]', Fix(device="b"), 2.0),
    ],
)
def test_fixes(raw: bytes, fix: Fix, expected: float) -> None:
    readings = again(raw, fix).readings
    assert readings is not None
    assert readings.values[Metric.POWER_W].tolist() == [expected]
    assert readings.device_no.tolist() == [7 if fix.device else 4]


@pytest.mark.parametrize(
    ("raw", "fix", "code"),
    [
        (b"{cut", Fix(negate_power=True), "fix-unusable"),
        (b'{"power_w":"x"}', Fix(negate_power=True), "fix-unusable"),
        (b'{"soc":1,"soc":2}', Fix(negate_power=True), "fix-unusable"),
        (b"3", Fix(negate_power=True), "fix-unusable"),
        (b'{"revision":3,"status":"applied"}', Fix(), "ack"),
        (b'{"at_ns":1000000000000000000,"soc":1}', Fix(), "time-old"),
        (b"{cut", Fix(), "json"),
        (b'{"power_w":1' + b"0" * 400 + b"}", Fix(scale={"power_w": 0.5}), "fix-unusable"),
        (b'{"power_w":1,"x":' + b"[" * 3000 + b"]" * 3000 + b"}", Fix(negate_power=True),
         "fix-unusable"),
        (b'{"power_w":1e300}', Fix(scale={"power_w": 1e300}), "json"),
    ],
)  # fmt: skip
def test_what_cannot_be_mended_says_why(raw: bytes, fix: Fix, code: str) -> None:
    assert again(raw, fix).reason.partition(":")[0] == code


def test_a_sender_enrolled_since_is_found_by_name() -> None:
    for source in ("mqtt/b", "http/b"):
        readings = again(b'{"soc":0.5}', source=source, device_no=-1).readings
        assert readings is not None
        assert readings.device_no.tolist() == [7]
    named = again(b'{"soc":0.5,"device":"b"}', source="http/api", device_no=-1).readings
    assert named is not None
    assert named.device_no.tolist() == [7]


def test_confirmed_and_declined_reach_who_waits_and_nobody_waits_for_ever() -> None:
    async def main() -> None:
        replay = Replay(wait_s=0.05)
        rows = [again(b'{"soc":0.5}'), again(b"{cut")]
        with pytest.raises(ReplayFull):
            await replay.through(rows)
        async with replay.open() as link:
            with pytest.raises(TimeoutError):
                await replay.through(rows)
            taken = link.receive()
            # Two of those nobody waits for any more, and the two that come now.
            waiting = asyncio.create_task(replay.through(rows))
            batches = [await anext(taken) for _ in range(4)]
            link.confirm(batches[0], {})
            link.decline(batches[1], "full")
            assert batches[2].source == "replay/0:1:0"
            link.confirm(batches[2], {0: "soc-range: x"})
            link.confirm(batches[3], {})
            assert await waiting == ["soc-range: x", rows[1].reason]
            waiting = asyncio.create_task(replay.through(rows[:1]))
            link.decline(await anext(taken), "no space")
            with pytest.raises(ReplayFull, match="no space"):
                await waiting

    asyncio.run(main())
