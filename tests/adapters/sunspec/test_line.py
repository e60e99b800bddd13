"""A line to peers that do everything wrong: each costs one question, and nothing after it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from tests.adapters.sunspec.inverter import Inverter, served

from kapelle.adapters.sunspec.link import Declined, Line
from kapelle.errors import LinkLost

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
ANSWER_S = 0.3


@asynccontextmanager
async def peer(*talks: Talk) -> AsyncIterator[tuple[Line, list[int], asyncio.Event]]:
    """Serve each connection by the next way of talking, the last for all that follow."""
    connections: list[int] = []
    serving: set[asyncio.Task[None]] = set()
    met = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        connections.append(len(connections))
        met.set()
        try:
            await talks[min(len(connections), len(talks)) - 1](reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    line = Line("127.0.0.1", server.sockets[0].getsockname()[1], answer_s=ANSWER_S)
    try:
        async with asyncio.timeout(30):
            yield line, connections, met
    finally:
        line.close()
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await asyncio.sleep(0)


async def answer(asked: bytes, **changed: int) -> bytes:
    """Return a good answer to a request for one register, or one with something changed."""
    given = {"transaction": int.from_bytes(asked[:2], "big"), "unit": asked[6], **changed}
    head = given["transaction"].to_bytes(2, "big") + b"\0\0\0\5" + bytes([given["unit"]])
    return head + b"\3\2\0\7"


async def well(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(await answer(await reader.readexactly(12)))
        await writer.drain()


def says(reply: Callable[[bytes], Awaitable[bytes]]) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reply(await reader.readexactly(12)))
        await writer.drain()
        await reader.read()

    return talk


async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readexactly(12)


async def garbage(asked: bytes) -> bytes:
    return b"HTTP/1.1 400 Bad Request\r\n\r\n"


async def flood(asked: bytes) -> bytes:
    return bytes(1_000_000)


async def wrong_transaction(asked: bytes) -> bytes:
    return await answer(asked, transaction=4_711)


async def wrong_unit(asked: bytes) -> bytes:
    return await answer(asked, unit=99)


async def half(asked: bytes) -> bytes:
    return (await answer(asked))[:8]


HOSTILE = {
    "silence": silence,
    "hangs up": hang_up,
    "garbage": says(garbage),
    "flood": says(flood),
    "wrong transaction": says(wrong_transaction),
    "wrong unit": says(wrong_unit),
    "half an answer": says(half),
}


@pytest.mark.parametrize("talk", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_amiss_drops_the_connection_and_the_next_question_is_answered(talk: Talk) -> None:
    async def run() -> None:
        async with peer(talk, well) as (line, connections, _):
            with pytest.raises(LinkLost):
                await line.read(1, 100, 1)
            assert await line.read(1, 100, 1) == b"\0\7"
            assert await line.read(1, 100, 1) == b"\0\7"
            assert len(connections) == 2
            assert line.connection == 2

    asyncio.run(run())


def test_an_answer_that_comes_too_late_is_not_taken_for_the_next() -> None:
    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readexactly(12)
        await asyncio.sleep(2 * ANSWER_S)
        writer.write(await answer(asked))
        await writer.drain()

    async def run() -> None:
        async with peer(late, well) as (line, _, _):
            with pytest.raises(LinkLost, match="no answer within"):
                await line.read(1, 100, 1)
            assert await line.read(1, 100, 1) == b"\0\7"

    asyncio.run(run())


def test_a_question_that_is_cancelled_half_way_leaves_nothing_behind() -> None:
    async def run() -> None:
        async with peer(silence, well) as (line, _, met):
            asking = asyncio.ensure_future(line.read(1, 100, 1))
            await met.wait()
            asking.cancel()
            with suppress(asyncio.CancelledError):
                await asking
            assert await line.read(1, 100, 1) == b"\0\7"

    asyncio.run(run())


def test_a_peer_that_closed_an_idle_connection_costs_nothing() -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await answer(await reader.readexactly(12)))
        await writer.drain()

    async def run() -> None:
        async with peer(once, well) as (line, connections, _):
            assert await line.read(1, 100, 1) == b"\0\7"
            await asyncio.sleep(0.2)
            assert await line.read(1, 100, 1) == b"\0\7"
            assert len(connections) == 2

    asyncio.run(run())


def test_nobody_there_is_a_lost_link() -> None:
    async def run() -> None:
        with pytest.raises(LinkLost):
            await Line("127.0.0.1", 1, answer_s=1.0).read(1, 100, 1)

    asyncio.run(run())


def test_units_behind_a_gateway_take_turns_on_one_connection() -> None:
    async def run() -> None:
        units = {number: Inverter() for number in (1, 2, 3)}
        for number, inverter in units.items():
            inverter.put(701, "W", 100 * number)
        async with asyncio.timeout(30), served(units) as port:
            line = Line("127.0.0.1", port, answer_s=5.0)
            at = 40_070 + 10
            async with asyncio.TaskGroup() as group:
                asked = [
                    (number, group.create_task(line.read(number, at, 1)))
                    for number in (1, 2, 3) * 20
                ]
            for number, task in asked:
                assert int.from_bytes(task.result(), "big") == 100 * number
            assert line.connection == 1
            # A unit that is not there is an answer of the gateway; the others are served on.
            with pytest.raises(Declined):
                await line.read(77, at, 1)
            assert await line.read(2, at, 1) == b"\0\xc8"
            assert line.connection == 1
            line.close()

    asyncio.run(run())


def test_a_connection_that_is_gone_is_not_made_anew_to_write() -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await answer(await reader.readexactly(12)))
        await writer.drain()

    async def run() -> None:
        async with peer(once, well) as (line, connections, _):
            await line.read(1, 100, 1)
            found_on = line.connection
            await asyncio.sleep(0.2)
            with pytest.raises(LinkLost, match="before anything was written"):
                await line.write(1, 100, b"\0\1", on=found_on)
            assert len(connections) == 1
            await line.read(1, 100, 1)
            with pytest.raises(LinkLost, match="before anything was written"):
                await line.write(1, 100, b"\0\1", on=found_on)

    asyncio.run(run())
