"""
Filters and handlers: everything that comes in, for who wants it.
"""

from __future__ import annotations

import asyncio
import json

import msgspec
import pytest

from channelsmultiplexer.client import (
    Multiplex,
)
from feed import (
    PATIENCE,
    Feed,
    assert_conserved,
    next_event,
    within,
)
from guard import blocked

pytestmark = pytest.mark.usefixtures("nothing_left")

# Which messages (rows) match which filters: the table of the interface's own rule.
MESSAGES = [
    {"a": 1, "c": 2},
    {"b": 2, "c": 3, "d": 4},
    {"a": 2, "c": 2},
    {"b": 2, "c": 4, "d": 4},
    {"a": True},
    {"a": {"x": 1}},
    {"a": {"x": 1, "y": 2}},
    {"a": None},
    {},
    [1],
]
FILTERS = [
    (None, range(10)),
    ([], range(10)),
    ([{}], range(10)),
    ([{"a": 1}, {"b": 2, "c": 3}], [0, 1, 4]),
    ([{"a": 1, "c": 2}], [0]),
    ([{"a": {"x": 1}}], [5]),
    ([{"a": None}], [7]),
    ([{"zzz": None}], []),
]


@pytest.mark.parametrize(("filters", "expected"), FILTERS)
async def test_filters(filters, expected):
    """A message matches a filter if it has all pairs of any of its dicts."""
    async with Feed() as feed, Multiplex(feed.url) as mux:
        stream = mux.stream_filter(filters)
        rest = mux.stream_filter([{"the": "end"}])
        for message in [*MESSAGES, {"the": "end"}]:
            await feed.sockets[0].send(json.dumps(message))
        await rest.recv(PATIENCE)
        got = await stream.recv_many() if expected else []
        if got and got[-1] == {"the": "end"}:
            got.pop()
        assert got == [MESSAGES[i] for i in expected]


async def test_stalled():
    """A stream on which many wait has them all, and goes on (A2)."""
    async with Feed() as feed, Multiplex(feed.url) as mux:
        stream, live = mux.stream_filter(), mux.stream_filter()
        for i in range(500):
            await feed.sockets[0].send(str(i))
            await live.recv(PATIENCE)
        assert await stream.recv_many() == list(range(500))
        await feed.sockets[0].send("500")
        assert await stream.recv(PATIENCE) == 500


async def test_handler():
    """A slow handler delays nobody; a removed one isn't called."""
    release, slow, quick = asyncio.Event(), [], []

    async def dawdle(message):
        slow.append(message)
        await release.wait()

    async with Feed() as feed, Multiplex(feed.url) as mux:
        mux.add_handler(dawdle)
        handle = mux.add_handler(quick.append)
        stream = mux.stream_filter()
        for i in range(10):
            await feed.sockets[0].send(str(i))
            assert await stream.recv(PATIENCE) == i
        assert (slow, quick) == ([0], list(range(10)))
        await handle.remove()
        await feed.sockets[0].send("10")
        assert await stream.recv(PATIENCE) == 10
        assert len(quick) == 10


async def test_handler_raises(caplog):
    """What a handler raises is logged, and the next message handled."""
    handled = []

    def fails(message):
        handled.append(message)
        raise LookupError(message)

    async with Feed() as feed, Multiplex(feed.url) as mux:
        mux.add_handler(fails)
        stream = mux.stream_filter()
        for i in range(2):
            await feed.sockets[0].send(str(i))
            await stream.recv(PATIENCE)
        await asyncio.sleep(0)  # Let the handler have its turn.
    assert handled == [0, 1]
    assert len(caplog.records) == 2


async def test_handled():
    """What has been handled waits nowhere else (J18)."""
    handled = asyncio.Queue()
    async with Feed() as feed, Multiplex(feed.url) as mux:
        mux.add_handler(handled.put_nowait)
        for i in range(100):
            await feed.sockets[0].send(str(i))
        assert [await within(handled.get()) for _ in range(100)] == list(range(100))
        stats = mux.stats()
        assert (stats.received, stats.delivered, stats.queued) == (100, 100, 0)


async def test_handler_adds_handlers():
    """Handlers added while a message is handled take it from nobody (A6)."""
    first, added = [], []

    def adds(message):
        first.append(message)
        mux.add_handler(added.append)

    async with Feed() as feed, Multiplex(feed.url) as mux:
        mux.add_handler(adds)
        stream = mux.stream_filter()
        for i in range(5):
            await feed.sockets[0].send(str(i))
            assert await stream.recv(PATIENCE) == i
        await asyncio.sleep(0)  # Let those that were added have their turn.
        assert first == [0, 1, 2, 3, 4]
        # Each gets what comes after it.
        assert sorted(added) == [1, 2, 2, 3, 3, 3, 4, 4, 4, 4]


async def test_handler_removes_itself():
    """A handler may remove itself; the others go on."""
    first, handles = [], []

    async def leaves(message):
        first.append(message)
        await handles[0].remove()

    async with Feed() as feed, Multiplex(feed.url) as mux:
        handles.append(mux.add_handler(leaves))
        stream = mux.stream_filter()
        for i in range(3):
            await feed.sockets[0].send(str(i))
            assert await stream.recv(PATIENCE) == i
        assert first == [0]


async def test_shared():
    """However many get a message, it is read once, and the same for all (A9)."""
    read = []

    def note(message):
        read.append(message)
        return message

    async with Feed() as feed, Multiplex(feed.url, post_processors=[note]) as mux:
        streams = [mux.stream_filter([{"s": i % 10}]) for i in range(1000)]
        await feed.sockets[0].send('{"s":7}')
        got = [await stream.recv(PATIENCE) for stream in streams[7::10]]
        assert read == [{"s": 7}]
        assert all(message is read[0] for message in got)
        assert mux.stats().total_messages_routed == 100


async def test_exit_at_once():
    """Exit before anything else ends what waits, and leaves nothing (A8)."""
    async with Feed() as feed:
        mux = Multiplex(feed.url)
        mux.add_handler(print)
        stream = mux.stream_filter()
        await within(mux.exit())
        assert [message async for message in stream] == []


async def test_handler_closes():
    """A handler may close the connection."""
    async with Feed() as feed, Multiplex(feed.url) as mux:
        mux.add_handler(lambda message: mux.close())
        await feed.sockets[0].send("0")
        await within(next_event(mux.events(), "closed"))


@pytest.mark.parametrize("filters", [{"a": 1}, [("a", 1)], "ab", {}])
async def test_no_filters(filters):
    """What is no list of dicts is refused, and leaves nothing registered."""
    async with Feed() as feed, Multiplex(feed.url) as mux:
        for add in (mux.stream_filter, lambda it: mux.add_handler(print, it)):
            with pytest.raises(TypeError, match="expected a list of dicts"):
                add(filters)
        assert mux.stats().active_subscriptions == 1


async def test_unread_rest():
    """What no filter matches is unrouted, no gap, while nobody asks for the rest."""
    async with Feed() as feed, Multiplex(feed.url, queue_size=2) as mux:
        events, stream = mux.events(), mux.stream_filter([{"a": 5}])
        for a in range(6):
            await feed.sockets[0].send(f'{{"a":{a}}}')
        await stream.recv(PATIENCE)
        assert (mux.stats().unrouted, mux.stats().dropped) == (5, 0)
        rest = await blocked(mux.receive())
        await feed.sockets[0].send("{}")
        assert await within(rest) == {}
        await mux.close()
        assert [event.name async for event in events] == ["closed"]


class Number(msgspec.Struct):
    """
    What a handler may ask for.
    """

    n: int


async def test_handler_of_a_type(caplog):
    """A message that isn't of a handler's type is logged; the next is handled."""
    got = asyncio.Queue()
    async with Feed() as feed, Multiplex(feed.url) as mux:
        mux.add_handler(got.put_nowait, type=Number)
        for text in ('{"n":"one"}', '{"n":2}'):
            await feed.sockets[0].send(text)
        assert await within(got.get()) == Number(2)
        assert "No message for the handler" in caplog.text


async def test_handler_is_canceled(caplog):
    """A handler whose function is canceled says so, and gets nothing more."""

    async def cancel(message):
        raise asyncio.CancelledError

    async with Feed() as feed, Multiplex(feed.url) as mux:
        handler = mux.add_handler(cancel)
        await feed.sockets[0].send("1")
        await asyncio.wait({handler.task}, timeout=PATIENCE)
        assert "was canceled" in caplog.text
        assert mux.stats().active_subscriptions == 1
        assert_conserved(mux.stats())


async def test_handler_is_too_slow(caplog):
    """A handler that ends because it was too slow says so."""
    release = asyncio.Event()

    async def dawdle(message):
        await release.wait()

    async with Feed() as feed, Multiplex(feed.url) as mux:
        handler = mux.add_handler(dawdle, queue_size=1, overflow="error")
        live = mux.stream_filter()
        for i in range(3):
            await feed.sockets[0].send(str(i))
            await live.recv(PATIENCE)
        release.set()
        await asyncio.wait({handler.task}, timeout=PATIENCE)
        assert "too slow: 1 of 1 are waiting" in caplog.text
