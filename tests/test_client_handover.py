"""
What a renewal promises, when one of the two links, or the server, doesn't play along.
"""

from __future__ import annotations

import asyncio
import itertools
import json

import pytest

from channelsmultiplexer.client import MemoryServer, Multiplex, Refused
from feed import (
    PATIENCE,
    Feed,
    assert_conserved,
    at_once,
    connection,
    next_event,
    within,
)
from guard import blocked, open_sockets

pytestmark = pytest.mark.usefixtures("nothing_left")


class Due:
    """
    When links are to be renewed: when the test says so.
    """

    def __init__(self):
        self._now = asyncio.Event()

    async def __call__(self):
        await self._now.wait()
        self._now.clear()

    def now(self):
        """
        Have the link that there is renewed.
        """
        self._now.set()


@pytest.fixture
def due():
    """
    Return what says when a renewal is due.
    """
    return Due()


@pytest.mark.parametrize("code", [1013, 4401])
async def test_new_link_closed(due, code, transport):
    """A new link that the server closes at once leaves the old one as it was."""

    async def greet(socket):
        if len(feed.sockets) == 2:
            await socket.close(code, "not you")

    options = {"renew_after": due, "delays": lambda: iter([3600])}
    async with Feed(greet) as feed, feed.client(transport=transport, **options) as mux:
        trades, events = await mux.subscribe("a"), mux.events()
        due.now()
        event = await within(next_event(events, "error"))
        assert "not you" in str(event.error)
        await mux.send("still here")
        await feed.publish("a", 1)
        assert (await trades.recv(PATIENCE))["data"] == 1
        await mux.subscribe("b", timeout=PATIENCE)
        assert feed.subscribed[feed.sockets[0]] == ["a", "b"]


async def test_new_link_refused_a_channel(due):
    """A new link that is refused a channel leaves the old one as it was."""
    refused = {"error": "full", "channels": ["a"]}

    async def greet(socket):
        if len(feed.sockets) == 2:
            await socket.recv()
            await socket.send(json.dumps(refused))

    options = {"renew_after": due, "delays": lambda: iter([3600])}
    async with Feed(greet) as feed, feed.client(**options) as mux:
        trades, events = await mux.subscribe("a"), mux.events()
        due.now()
        event = await within(next_event(events, "error"))
        assert isinstance(event.error, Refused)
        await within((await feed.socket(1)).wait_closed())
        await feed.publish("a", 1, 0)
        assert (await trades.recv(PATIENCE))["data"] == 1


async def test_new_link_is_never_ready(due):
    """A new link that isn't given all that is wanted is given up."""

    def confirms(channel, message):
        return True if len(feed.sockets) == 1 else None

    options = {"renew_after": due, "open_timeout": 0.5, "delays": lambda: iter([3600])}
    async with Feed() as feed, feed.client(ack=confirms, **options) as mux:
        trades, events = await mux.subscribe("a"), mux.events()
        due.now()
        event = await within(next_event(events, "error"))
        assert isinstance(event.error, TimeoutError)
        await within((await feed.socket(1)).wait_closed())
        await feed.publish("a", 1, 0)
        assert (await trades.recv(PATIENCE))["data"] == 1


async def test_new_link_is_ready_late(due):
    """A new link may take longer than the overlap to be given all that is wanted."""

    async def greet(socket):
        if len(feed.sockets) == 2:
            # A server that is slow.
            await asyncio.sleep(0.2)

    options = {"renew_after": due, "overlap": 0.05, "delays": lambda: iter([3600])}
    async with Feed(greet) as feed, feed.client(**options) as mux:
        await mux.subscribe("a")
        events = mux.events()
        due.now()
        await within(next_event(events, "renewed"))
        assert feed.subscribed[feed.sockets[1]] == ["a"]


async def test_tried_again(due):
    """A renewal that failed is tried again; so is one that couldn't say when."""

    async def when():
        if not asked:
            asked.append(True)
            raise OSError("no clock")
        await due()

    asked = []
    options = {"renew_after": when, "overlap": 0.01}
    async with Feed() as feed:
        client = connection(feed, **options)
        events = client.events()
        await client.connect()
        assert "no clock" in str((await within(next_event(events, "error"))).error)
        feed.answers = [(403, {})]
        due.now()
        assert "403" in str((await within(next_event(events, "error"))).error)
        await within(next_event(events, "renewed"))
        assert client.connections == 2
        await client.close()


async def test_failed_renewals_keep_nothing(due):
    """After a renewal that failed the old link is free of what it took for it."""
    options = {"renew_after": due, "overlap": 0.01, "delays": lambda: iter([3600])}
    async with Feed() as feed, connection(feed, **options) as client:
        events = client.events()
        feed.answers = [(403, {})]
        due.now()
        await within(next_event(events, "error"))
        # Nothing that can be seen from outside grows by little enough to test.
        assert client._supervisor.link.overlap is None


async def test_what_the_new_one_brought(due):
    """What a link that is given up brought first isn't delivered a second time."""
    options = {"renew_after": due, "delays": lambda: iter([3600])}
    async with Feed() as feed, connection(feed, **options) as client:
        events = client.events()
        due.now()
        new = await feed.socket(1)
        await new.send("first")
        assert await client.receive(PATIENCE) == "first"
        await new.close(1013)
        await within(next_event(events, "error"))
        for frame in ("first", "second"):
            await feed.sockets[0].send(frame)
        assert await client.receive(PATIENCE) == "second"


@pytest.mark.parametrize("how", ["abort", "close"])
async def test_old_link_lost(due, how, transport):
    """An old link that is lost in a renewal is a loss, which the new one makes good."""

    def confirms(channel, message):
        return True if message["stream"] == channel else None

    async with Feed() as feed:
        options = {"renew_after": due, "transport": transport, "ack": confirms}
        async with feed.client(**options) as mux:
            opening = asyncio.ensure_future(mux.subscribe("a"))
            await feed.message(0)
            await feed.publish("a", "confirmed", 0)
            trades, events = await within(opening), mux.events()
            due.now()
            await feed.message(1)
            await lose(feed.sockets[0], how)
            await within(next_event(events, "disconnected"))
            await feed.publish("a", "confirmed", 1)
            assert (await within(next_event(events, "gap"))).channel == "a"
            await feed.publish("a", 1, 1)
            assert (await trades.recv(PATIENCE))["data"] == 1
            assert len(feed.sockets) == 2


async def test_old_link_lost_before_the_new_one(due):
    """An old link that is lost before the new one is open is a loss as any other."""

    async def greet(link):
        if len(feed.sockets) == 2:
            feed.sockets[0].transport.abort()
            # It is too late for this one.
            await asyncio.Event().wait()

    options = {"renew_after": due, "on_connect": greet}
    async with Feed() as feed, feed.client(**options) as mux:
        trades, events = await mux.subscribe("a"), mux.events()
        due.now()
        assert (await within(next_event(events, "gap"))).channel == "a"
        await feed.publish("a", 1)
        assert (await trades.recv(PATIENCE))["data"] == 1
        assert len(feed.sockets) == 3
        await within(feed.sockets[1].wait_closed())


async def lose(socket, how):
    if how == "abort":
        socket.transport.abort()
    else:
        await socket.close(1012)


@pytest.mark.parametrize("by", ["connection", "multiplex"])
async def test_blocked_readers(due, by, transport):
    """Both links may wait for one reader; then there is one link, and no third."""
    options = {"renew_after": due, "overlap": 0.05, "transport": transport}
    if by == "multiplex":
        options.update(channel_key="c", delays=at_once)
    async with Feed() as feed:
        client = (
            Multiplex(feed.url, **options)
            if by == "multiplex"
            else connection(feed, **options)
        )
        async with client:
            limit, reader = 1000, client.receive
            if by == "multiplex":
                limit = 3
                slow = await client.subscribe("a", queue_size=limit, overflow="block")
                reader = slow.recv
            events = client.events()
            numbers = itertools.count()
            # Each is full when the other comes.
            await fill(feed.sockets[0], limit + 10, numbers)
            due.now()
            await fill(await feed.socket(1), 20, numbers)
            await within(next_event(events, "renewed"))
            got = [await reader(PATIENCE) for _ in range(limit + 30)]
            assert sorted(map(number, got)) == list(range(limit + 30))
            assert len(feed.sockets) == 2
            if by == "multiplex":
                assert_conserved(client.stats())


async def fill(socket, total, numbers):
    for _ in range(total):
        await socket.send(json.dumps({"c": "a", "n": next(numbers)}))


def number(message):
    return (json.loads(message) if isinstance(message, str) else message)["n"]


async def test_new_link_lags(due):
    """What the old link brought last isn't a second message when the new one does."""
    async with (
        Feed() as feed,
        connection(feed, renew_after=due, overlap=0.3) as client,
    ):
        events = client.events()
        due.now()
        new = await feed.socket(1)
        await new.send("first")
        assert await client.receive(PATIENCE) == "first"
        await feed.sockets[0].send("last")
        assert await client.receive(PATIENCE) == "last"
        await within(feed.sockets[0].wait_closed())
        await within(next_event(events, "renewed"))
        for frame in ("last", "next"):
            await new.send(frame)
        assert await client.receive(PATIENCE) == "next"


async def test_events_of_a_renewal(due):
    """A renewal is no loss: it tells of no disconnection, and of no gap."""
    async with (
        Feed() as feed,
        feed.client(renew_after=due, overlap=0.05) as mux,
    ):
        await mux.subscribe("a")
        events = mux.events()
        due.now()
        await within(next_event(events, "renewed"))
        await mux.close()
        names = [event.name async for event in events]
        assert names == ["closed"]
        assert len(feed.sockets) == 2


# Streams of our own server; frame by frame, as no real one does on request.


class V1:
    """
    A client that speaks v1, and the server in memory that it is connected to.
    """

    def __init__(self, due, **options):
        self.server = MemoryServer()
        self.mux = Multiplex(
            "ws://test",
            dialect="v1",
            transport=self.server.connect,
            renew_after=due,
            **{"overlap": 0.05, "delays": lambda: iter([3600]), **options},
        )

    async def __aenter__(self):
        await self.mux.connect()
        self.old = await self.server.accept(PATIENCE)
        self.events = self.mux.events()
        return self

    async def __aexit__(self, *exc_info):
        await self.mux.close()

    async def open(self, path):
        """
        Open a stream.
        """
        opening = asyncio.ensure_future(self.mux.open(path))
        await self.answer(self.old, "opened")
        return await within(opening)

    async def answer(self, socket, op, **content):
        """
        Answer the next frame, and return it.
        """
        frame = json.loads(await within(socket.recv()))
        answer = {"op": op, "stream": frame["stream"], **content}
        await socket.send(json.dumps(answer))
        return frame


async def test_stream_numbers(due):
    """A stream's frames have its number on the link that they are written to."""
    async with V1(due) as v1:
        gone, stream = await v1.open("a"), await v1.open("b")
        await gone.close()
        assert json.loads(await within(v1.old.recv()))["op"] == "close"
        due.now()
        new = await v1.server.accept(PATIENCE)
        opening = json.loads(await within(new.recv()))
        assert (opening["stream"], opening["path"]) == ("1", "b")
        await stream.send("to the old one")
        frame = json.loads(await within(v1.old.recv()))
        assert frame == {"stream": "2", "payload": "to the old one"}
        await new.send('{"op":"opened","stream":"1"}')
        await within(next_event(v1.events, "renewed"))
        await stream.send("to the new one")
        frame = json.loads(await within(new.recv()))
        assert frame == {"stream": "1", "payload": "to the new one"}


async def test_stream_is_renewed(due):
    """A stream that is renewed says that another application is at its other end."""
    async with V1(due) as v1:
        stream = await v1.open("a")
        due.now()
        await v1.answer(await v1.server.accept(PATIENCE), "opened", subprotocol="x")
        assert (await within(next_event(v1.events, "gap"))).channel == "a"
        assert (stream.reopened, stream.subprotocol) == (1, "x")


@pytest.mark.parametrize("code", [1012, 4409])
async def test_stream_refused_by_the_new_one(due, code):
    """A stream that is refused on the new link goes on with the old one."""
    async with V1(due) as v1:
        stream = await v1.open("a")
        due.now()
        new = await v1.server.accept(PATIENCE)
        await v1.answer(new, "closed", code=code, reason="you are here already")
        event = await within(next_event(v1.events, "error"))
        assert "already" in str(event.error)
        await v1.old.send('{"stream":"1","payload":1}')
        assert await stream.recv(PATIENCE) == 1
        await stream.send("still here")
        assert "still here" in await within(v1.old.recv())
        assert stream.code is None


async def test_stream_closed_by_the_old_one(due):
    """What an old link says of a stream after its time is of no interest."""
    closed = '{"op":"closed","stream":"1","code":1001,"reason":""}'
    async with V1(due) as v1:
        stream = await v1.open("a")
        # When the new link is the one to send on, and before the old one is closed.
        v1.mux.on("connected", lambda _: asyncio.ensure_future(v1.old.send(closed)))
        due.now()
        new = await v1.server.accept(PATIENCE)
        await v1.answer(new, "opened")
        await within(next_event(v1.events, "renewed"))
        reading = await blocked(stream.recv())
        await new.send('{"stream":"1","payload":1}')
        assert await within(reading) == 1
        assert v1.mux.stats().control == 3


async def test_stream_lost_in_a_renewal(due):
    """A stream whose old link is lost in a renewal is reopened, with one gap."""
    async with V1(due) as v1:
        stream = await v1.open("a")
        due.now()
        new = await v1.server.accept(PATIENCE)
        v1.old.abort()
        await within(next_event(v1.events, "disconnected"))
        await v1.answer(new, "opened")
        assert (await within(next_event(v1.events, "gap"))).channel == "a"
        assert stream.reopened == 1
        await stream.send("here")
        assert "here" in await within(new.recv())


async def test_stream_refused_while_the_old_link_is_lost(due):
    """A new link that is of no use when the old one is lost is no successor."""
    async with V1(due, delays=at_once) as v1:
        stream = await v1.open("a")
        names = []
        for name in ("connected", "renewed", "closed"):
            v1.mux.on(name, lambda event: names.append(event.name))
        due.now()
        new = await v1.server.accept(PATIENCE)
        opening = within(new.recv())
        number = json.loads(await opening)["stream"]
        # In one go: neither end is seen before the other.
        v1.old.abort()
        await new.send(f'{{"op":"closed","stream":"{number}","code":4409,"reason":""}}')
        third = await v1.server.accept(PATIENCE)
        await v1.answer(third, "opened")
        assert (await within(next_event(v1.events, "gap"))).channel == "a"
        assert names == ["connected"]
        assert stream.reopened == 1


async def test_streams_of_one_path(due):
    """Two streams of one path that are sent the same each get it, once."""
    async with V1(due, overlap=PATIENCE) as v1:
        streams = [await v1.open("a"), await v1.open("a")]
        due.now()
        new = await v1.server.accept(PATIENCE)
        for _ in streams:
            await v1.answer(new, "opened")
        sent = [(v1.old, "1"), (new, "2"), (new, "1"), (v1.old, "2")]
        for socket, number in sent:
            await socket.send(f'{{"stream":"{number}","payload":"x"}}')
            # What an event tells of, when it is the turn of the next.
            await socket.send("garbage")
            await within(next_event(v1.events, "error"))
        assert [stream.stats().messages_received for stream in streams] == [1, 1]


async def test_new_link_lost_while_the_old_one_is_closed(due):
    """A new link's end is noticed also while the old one's server is silent."""
    options = {"renew_after": due, "overlap": 0.05, "close_timeout": 2 * PATIENCE}
    async with Feed() as feed, connection(feed, **options) as client:
        events = client.events()
        feed.sockets[0].transport.pause_reading()
        due.now()
        second = await feed.socket(1)
        await within(next_event(events, "connected"))
        await second.close(1012)
        await within(next_event(events, "disconnected"))
        await within(next_event(events, "connected"))
        assert client.connections == 3


async def test_closed_while_the_old_link_is_closed(due, transport):
    """Closing while the old link's server is silent leaves none of its sockets."""
    options = {"renew_after": due, "overlap": 0.05, "close_timeout": 0.1}
    async with Feed() as feed:
        before = open_sockets()
        async with connection(feed, transport=transport, **options) as client:
            events = client.events()
            old = client._supervisor.link
            feed.sockets[0].transport.pause_reading()
            due.now()
            await feed.socket(1)
            await within(next_event(events, "connected"))
            # Then its time to close is over, and it is dropped.
            await asyncio.wait({old.task}, timeout=PATIENCE)
        await within(feed.sockets[1].wait_closed())
        # That of the old link's server.
        assert len(open_sockets() - before) == 1


async def test_equal_answers(due):
    """An answer on a new link is none of those that the old one brought."""
    async with V1(due) as v1:
        stream = await v1.open("a")
        due.now()
        new = await v1.server.accept(PATIENCE)
        await v1.old.send('{"stream":"1","payload":"pong"}')
        assert await stream.recv(PATIENCE) == "pong"
        await v1.answer(new, "opened")
        await within(next_event(v1.events, "gap"))
        await stream.send("ping")
        await new.send('{"stream":"1","payload":"pong"}')
        assert await stream.recv(PATIENCE) == "pong"
