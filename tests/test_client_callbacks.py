"""
Functions of the caller's that fail, or call what calls them: the connection goes on.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import subprocess
import sys

import pytest

from channelsmultiplexer.client import (
    Closed,
    Connection,
    MemoryServer,
    Multiplex,
    State,
)
from feed import PATIENCE, Feed, at_once, connection, never, next_event, within
from feed import subscribe as subscribe_msg
from guard import blocked

EXTRAS = {"websockets": "client", "picows": "fast"}

pytestmark = pytest.mark.usefixtures("nothing_left")


def raising(error):
    """
    Return a function that raises *error*.
    """

    def function(*args):
        raise error

    return function


def picky(channel):
    """
    Return the message that subscribes to a channel, if it is a good one.
    """
    if channel == "no message":
        raise LookupError(channel)
    if channel == "no JSON":
        return {"method": object()}
    return subscribe_msg(channel)


@pytest.mark.parametrize("channel", ["no message", "no JSON", "no processing"])
async def test_message_that_cannot_be_made(channel):
    """A subscription whose message can't be made fails alone."""

    def process(message):
        if message["params"] == ["no processing"]:
            raise LookupError(message)
        return message

    options = {"subscribe_msg": picky, "pre_processors": [process]}
    async with Feed() as feed, feed.client(**options) as mux:
        with pytest.raises((LookupError, TypeError)):
            await mux.subscribe(channel, timeout=PATIENCE)
        await mux.subscribe("a", timeout=PATIENCE)
        assert mux.list_subscriptions() == ["a"]
        assert mux.stats().connection_stats["connections"] == 1


async def test_auth_is_missing():
    """A subscription that nobody can sign is refused before anything."""
    async with Feed() as feed, feed.client() as mux:
        with pytest.raises(ValueError, match="auth"):
            await mux.subscribe("a", auth=True)
        assert mux.list_subscriptions() == []


async def test_signature_is_late():
    """A subscription that can't be signed after a loss is asked for again."""

    def sign(message):
        if len(feed.sockets) == 2 and not failed:
            failed.append(True)
            raise LookupError("no token")
        return message

    failed = []
    async with Feed() as feed, feed.client(auth=sign) as mux:
        trades = await mux.subscribe("a", auth=True)
        events = mux.events()
        await feed.sockets[0].close(1012)
        assert "token" in str((await within(next_event(events, "error"))).error)
        await feed.message(1)
        await feed.publish("a", 1)
        assert (await trades.recv(PATIENCE))["data"] == 1


@pytest.mark.parametrize("which", ["uri", "headers", "on_connect"])
async def test_callback_fails_once(which, transport):
    """A callback that fails after a loss is told of, and asked again."""

    def ask(*link):
        asked.append(True)
        if len(asked) == 2:
            raise LookupError("503")
        return answers[which]

    async def greet(link):
        ask()

    asked = []
    async with Feed() as feed:
        answers = {"uri": feed.url, "headers": {}, "on_connect": None}
        options = {"uri": feed.url, "delays": at_once, "transport": transport}
        options[which] = greet if which == "on_connect" else ask
        async with Connection(**options) as client:
            events = client.events()
            await feed.sockets[0].close(1012)
            event = await within(next_event(events, "error"))
            assert isinstance(event.error, LookupError)
            await within(next_event(events, "connected"))
        assert len(asked) == 3


async def fails_and_goes_on(feed, which, options):
    """
    Fail the test unless a callback that says it was canceled has failed, no more.
    """
    async with Connection(**options) as client:
        events = client.events()
        if which != "renew_after":
            await feed.sockets[0].close(1012)
        event = await within(next_event(events, "error"))
        assert "canceled" in str(event.error)
        await within(next_event(events, "connected"))


@pytest.mark.parametrize("which", ["uri", "headers", "on_connect", "renew_after"])
async def test_callback_is_cancelled(which, transport):
    """A callback that was canceled, not by us, has failed, and is asked again."""

    async def ask(*link):
        asked.append(True)
        if len(asked) == (1 if which == "renew_after" else 2):
            gone = asyncio.get_running_loop().create_future()
            gone.cancel()
            await gone
        return answers[which]

    asked = []
    async with Feed() as feed:
        answers = {"uri": feed.url, "headers": {}, "on_connect": 0, "renew_after": 0}
        options = {"uri": feed.url, "delays": at_once, "transport": transport}
        options |= {"overlap": 0.05, which: ask}
        await fails_and_goes_on(feed, which, options)


@pytest.mark.parametrize("which", ["uri", "headers", "on_connect", "renew_after"])
async def test_callback_raises_cancellation(which):
    """A function that isn't awaited, and says that it was canceled, has failed."""

    def ask(*link):
        asked.append(True)
        if len(asked) == (1 if which == "renew_after" else 2):
            raise asyncio.CancelledError
        return answers.get(which) or asyncio.sleep(0)

    asked = []
    async with Feed() as feed:
        answers = {"uri": feed.url, "headers": {"X": "1"}}
        options = {"uri": feed.url, "delays": at_once, "overlap": 0.05, which: ask}
        await fails_and_goes_on(feed, which, options)


async def test_listener_raises_cancellation(caplog):
    """A callback for events that says it was canceled is logged, as any error."""
    async with Feed() as feed, connection(feed) as client:
        client.on("disconnected", raising(asyncio.CancelledError("mine")))
        await feed.sockets[0].close(1012)
        await (await feed.socket(1)).send("again")
        assert await client.receive(PATIENCE) == "again"
    assert "A callback for 'disconnected' raised" in caplog.text


async def test_cancelled_by_another(transport):
    """A connection whose tasks are canceled, not by close(), ends, and says so."""
    async with Feed() as feed:
        client = connection(feed, transport=transport)
        before = asyncio.all_tasks()
        await client.connect()
        receiving = await blocked(client.receive())
        for task in asyncio.all_tasks() - before - {receiving}:
            if "_supervise" in repr(task):
                task.cancel()
        with pytest.raises(Closed, match="CancelledError"):
            await within(receiving)
        assert client.state is State.CLOSED
        await within(feed.sockets[0].wait_closed())


@pytest.mark.parametrize("by", ["connection", "multiplex"])
async def test_post_processor_is_cancelled(by, transport):
    """A post-processor that was canceled, not by us, costs one message, and no link."""

    async def process(frame):
        if "bad" in str(frame):
            raise asyncio.CancelledError
        return frame

    options = {"post_processors": [process], "transport": transport}
    async with Feed() as feed:
        make = feed.client if by == "multiplex" else functools.partial(connection, feed)
        async with make(**{**options, "delays": never}) as client:
            client.iter_messages()
            events = client.events()
            for frame in ('"bad"', '"good"'):
                await feed.sockets[0].send(frame)
            event = await within(next_event(events, "error"))
            assert "canceled" in str(event.error)
            assert "good" in await client.receive(PATIENCE)


async def test_callback_says_stop():
    """A callback that raises Closed ends the connection."""

    def uri():
        if feed.sockets:
            raise Closed(4401, "no more tokens")
        return feed.url

    async with Feed() as feed, Connection(uri, delays=at_once) as client:
        await feed.sockets[0].close(1012)
        with pytest.raises(Closed, match="4401 no more tokens"):
            await client.receive(PATIENCE)


async def test_callback_fails_at_first():
    """A callback that fails at the first attempt ends it."""
    with pytest.raises(Closed, match="LookupError: none") as caught:
        await Connection(raising(LookupError("none"))).connect(PATIENCE)
    assert isinstance(caught.value.__cause__, LookupError)


@pytest.mark.parametrize("which", ["uri", "on_connect"])
async def test_close_while_connecting(which):
    """A connection can be closed by what opens it."""

    async def close(*link):
        await client.close()
        return feed.url

    async with Feed() as feed:
        options = {"uri": feed.url, which: close}
        client = Connection(**options)
        with pytest.raises(Closed, match="1000"):
            await within(client.connect())
        await within(client.close())
        assert client.state is State.CLOSED


@pytest.mark.parametrize("which", ["renew_after", "post_processors"])
async def test_close_while_connected(which, transport):
    """A connection can be closed by what it calls; a reader is told."""

    async def close(*message):
        await client.close()
        return "last"

    async with Feed() as feed:
        options = {"renew_after": close, "post_processors": [close]}
        client = connection(feed, transport=transport, **{which: options[which]})
        await client.connect()
        if which == "post_processors":
            await feed.sockets[0].send("anything")
            assert await client.receive(PATIENCE) == "last"
        with pytest.raises(Closed, match="1000"):
            await client.receive(PATIENCE)
        await within(client.close())


@pytest.mark.parametrize("by", ["on_connect", "event"])
async def test_close_in_a_task_of_a_callback(by):
    """A task that a callback starts waits for the end of what it closes."""

    async def close():
        await connected.wait()
        await client.close()
        return client.state

    def start(event):
        closing.append(asyncio.ensure_future(close()))

    async def greet(link):
        if by == "on_connect":
            start(None)

    connected, closing = asyncio.Event(), []
    async with Feed() as feed:
        client = connection(feed, on_connect=greet)
        if by == "event":
            client.on("connected", start)
        await client.connect()
        connected.set()
        assert await within(closing[0]) is State.CLOSED


async def test_close_while_serving():
    """What reads a link can close the connection; it doesn't wait for itself."""

    async def serve(link):
        await client.close()
        served.set()

    served = asyncio.Event()
    async with Feed() as feed:
        client = connection(feed, serve=serve, close_timeout=None)
        await client.connect()
        await within(served.wait())
        await within(client.close())


async def test_close_in_a_handler():
    """A handler that closes the connection leaves no other one at work."""

    async def close(message):
        await mux.close()
        closed.set()

    closed = asyncio.Event()
    async with Feed() as feed, feed.client() as mux:
        mux.add_handler(close)
        slow = mux.add_handler(lambda message: asyncio.sleep(3600))
        await feed.sockets[0].send("[1]")
        await within(closed.wait())
        assert slow.task.done()


async def test_close_is_cancelled():
    """Close goes on to the end when it is cancelled."""
    async with Feed() as feed:
        client = connection(feed)
        await client.connect()
        closing = asyncio.ensure_future(client.close())
        await asyncio.sleep(0)  # It has begun.
        closing.cancel()
        await asyncio.wait({closing})
        with pytest.raises(Closed, match="1000"):
            await client.receive(PATIENCE)
        await within(feed.sockets[0].wait_closed())


@pytest.mark.parametrize("verb", ["send", "subscribe"])
async def test_waiting_for_itself(verb):
    """on_connect is told to send on its link, rather than wait for what waits."""

    async def greet(link):
        await (mux.send("a") if verb == "send" else mux.subscribe("a"))

    async with Feed() as feed:
        mux = feed.client(on_connect=greet)
        with pytest.raises(Closed, match="expected the link's send"):
            await within(mux.connect())


async def test_task_of_on_connect():
    """A task that on_connect starts can send, once on_connect is done."""

    async def send():
        await started.wait()
        await client.send({"a": 1})

    async def greet(link):
        tasks.append(asyncio.ensure_future(send()))

    tasks, started = [], asyncio.Event()
    async with Feed() as feed:
        client = connection(feed, on_connect=greet)
        async with client:
            started.set()
            await within(asyncio.gather(*tasks))
            assert await feed.message() == {"a": 1}


@pytest.mark.parametrize("reader", ["filter", "receive", "connection"])
async def test_gap_of_no_channel(reader):
    """A loss is a gap also for those who read what comes, whatever its channel."""
    async with Feed() as feed:
        client = connection(feed) if reader == "connection" else feed.client()
        async with client:
            if reader == "filter":
                client.stream_filter([{"a": 1}])
            if reader == "receive":
                client.iter_messages()
            events = client.events()
            await feed.sockets[0].close(1012)
            gap = await within(next_event(events, "gap"))
            assert gap.channel is None


async def test_server_of_another_dialect(transport):
    """A server that doesn't speak v1 ends the attempt, rather than never answer."""
    async with Feed() as feed:
        mux = Multiplex(feed.url, dialect="v1", transport=transport)
        with pytest.raises(Closed, match=r"1002 .*doesn't speak channelsmultiplexer"):
            await within(mux.connect(PATIENCE))


async def test_what_we_closed_with(transport):
    """A link that we close for a reason ends with that reason."""
    options = {"transport": transport, "max_size": 10, "delays": never}
    async with Feed() as feed, connection(feed, **options) as client:
        await feed.sockets[0].send("x" * 100)
        with pytest.raises(Closed) as caught:
            await client.receive(PATIENCE)
        assert caught.value.code == 1009


@pytest.mark.parametrize(("module", "extra"), EXTRAS.items())
def test_extra_is_missing(module, extra):
    """What isn't installed is traced to the extra that installs it."""
    program = f"""
import sys
sys.modules[{module!r}] = None
from channelsmultiplexer.client import Connection
Connection("ws://test", transport={module!r})
"""
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert f'pip install "channelsmultiplexer[{extra}]"' in result.stderr


async def test_no_certificate(transport):
    """verify_ssl=False is no hindrance where there is no certificate."""
    async with (
        Feed() as feed,
        connection(feed, transport=transport, verify_ssl=False) as client,
    ):
        assert client.state is State.CONNECTED


def test_event_loop_that_ends():
    """An event loop that ends in any turn of an opening has nothing to warn of."""

    async def log_in(link):
        await asyncio.sleep(0)

    async def same(message):
        return message

    async def use(mux):
        await mux.connect()
        await mux.send(1)

    async def leave_open(turns):
        options = {"on_connect": log_in, "pre_processors": [same]}
        mux = Multiplex("ws://x", transport=MemoryServer().connect, **options)
        using = asyncio.ensure_future(use(mux))
        for _ in range(turns):
            await asyncio.sleep(0)
        assert not using.done() or using.result() is None

    for turns in range(40):
        asyncio.run(leave_open(turns))
        gc.collect()


@pytest.mark.parametrize("name", ["uri", "on_connect"])
@pytest.mark.parametrize("act", ["cancel", "close"])
async def test_raises_as_it_is_canceled(name, act, caplog):
    """What a callback raises as it is canceled is nobody's, and no warning."""
    called = asyncio.Event()

    async def hang(*args):
        called.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise LookupError

    options = {"uri": "ws://x", "transport": MemoryServer().connect, name: hang}
    client = Connection(**options)
    connecting = asyncio.ensure_future(client.connect())
    await within(called.wait())
    await (client.close() if act == "close" else cancelled(connecting))
    with pytest.raises((Closed, asyncio.CancelledError)):
        await connecting
    gc.collect()
    await asyncio.sleep(0)
    assert not [r for r in caplog.records if r.name == "asyncio"]


async def cancelled(task):
    task.cancel()
    await asyncio.wait([task])


async def test_canceled_close():
    """A close() that is canceled has its handlers stop, whichever turn it was in."""

    async def hang(message):
        called.set()
        await asyncio.Event().wait()

    for turns in range(1, 50):
        called, server = asyncio.Event(), MemoryServer()
        mux = Multiplex("ws://x", transport=server.connect)
        await mux.connect()
        handler = mux.add_handler(hang)
        await (await server.accept(PATIENCE)).send("1")
        await within(called.wait())
        closing = asyncio.ensure_future(mux.close())
        for _ in range(turns):
            await asyncio.sleep(0)
        await cancelled(closing)
        await within(asyncio.wait([handler.task]))
        await mux.close()


async def test_closed_by_a_handler():
    """A handler that closes is called no more: what waited for it is dropped."""
    closed = asyncio.Event()

    async def close(message):
        await mux.close()
        calls.append(message)
        closed.set()

    calls, server = [], MemoryServer()
    async with Multiplex("ws://x", transport=server.connect) as mux:
        handler = mux.add_handler(close)
        socket = await server.accept(PATIENCE)
        for i in range(5):
            await socket.send(str(i))
        await within(closed.wait())
        await within(asyncio.wait([handler.task]))
    assert calls == [0]
