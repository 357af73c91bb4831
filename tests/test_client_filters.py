"""
Filters and handlers: everything that comes in, for who wants it.
"""

from __future__ import annotations

import asyncio
import json

import pytest

from channelsmultiplexer.client import (
    Multiplex,
)
from feed import (
    PATIENCE,
    Feed,
    next_event,
    within,
)

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


async def test_handler():
    """A slow handler delays nobody; a removed one isn't called (A6)."""
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
        # Nothing is kept for nobody (J18).
        assert mux.stats().queued == 9
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


async def test_handler_closes():
    """A handler may close the connection (A8)."""
    async with Feed() as feed, Multiplex(feed.url) as mux:
        mux.add_handler(lambda message: mux.close())
        await feed.sockets[0].send("0")
        await within(next_event(mux.events(), "closed"))
