"""
One WebSocket: what is sent, what is received, and how it is opened and closed.
"""

from __future__ import annotations

import asyncio
import datetime
import gc
import json
import ssl
import subprocess

import pytest

from channelsmultiplexer.client import (
    Closed,
    Connection,
    MemoryServer,
    RateLimit,
    State,
)
from feed import (
    PATIENCE,
    Feed,
    connection,
    next_event,
    within,
)
from guard import blocked
from requirement import program

pytestmark = pytest.mark.usefixtures("nothing_left")


async def test_receive(transport):
    """Frames arrive as they were sent: text is text, whatever it looks like (N6)."""
    async with Feed() as feed, connection(feed, transport=transport) as client:
        for frame in ("123", "null", b"123", ""):
            await feed.sockets[0].send(frame)
            assert await client.receive(PATIENCE) == frame


async def test_on_connect():
    """on_connect has each new link to itself, and can talk."""

    async def login(link):
        await link.send({"login": "me"})
        assert json.loads(await link.receive()) == {"welcome": 1}

    async def welcome(socket):
        assert json.loads(await socket.recv()) == {"login": "me"}
        await socket.send('{"welcome":1}')
        await socket.send("first")

    async with Feed(welcome) as feed, connection(feed, on_connect=login) as client:
        assert await client.receive(PATIENCE) == "first"


@pytest.mark.parametrize("error", [LookupError("none"), Closed(4401, "no")])
async def test_on_connect_raises(error):
    """What on_connect raises ends the connection, and is the cause."""

    async def login(link):
        raise error

    async with Feed() as feed:
        with pytest.raises(Closed) as caught:
            await connection(feed, on_connect=login).connect()
        assert error in (caught.value, caught.value.__cause__)
        await within((await feed.socket(0)).wait_closed())


async def test_on_connect_hangs():
    """on_connect has as long as the handshake."""

    async def login(link):
        await asyncio.Event().wait()

    # In memory the handshake takes no time.
    options = {"transport": MemoryServer().connect, "open_timeout": 0.05}
    client = Connection("ws://test", on_connect=login, **options)
    with pytest.raises(Closed, match="on_connect took too long"):
        await within(client.connect())


async def test_pre_processors():
    """Pre-processors are applied in order, sync or async, and then the signature."""

    async def add(message):
        message["steps"].append("add")
        return message

    def sign(message):
        return {**message, "steps": [*message["steps"], "sign"]}

    options = {
        "pre_processors": [add, lambda m: {**m, "steps": [*m["steps"], "last"]}],
        "auth": sign,
    }
    async with Feed() as feed, connection(feed, **options) as client:
        message = {"steps": []}
        await client.send(message, auth=True)
        assert (await feed.message())["steps"] == ["add", "last", "sign"]
        await client.send(message)
        assert (await feed.message())["steps"] == ["add", "last"]
        assert message == {"steps": []}


@pytest.mark.parametrize("name", ["auth", "pre_processors"])
async def test_pre_processor_returns_nothing(name):
    """A pre-processor that returns nothing is named, and nothing is sent."""

    async def forget(message):
        message["x"] = 1

    options = {name: forget if name == "auth" else [forget]}
    async with Feed() as feed, connection(feed, **options) as client:
        with pytest.raises(TypeError, match=r"expected the message from .*forget"):
            await client.send({}, auth=name == "auth")
        await within(await feed.sockets[0].ping())
        assert feed.got[0].empty()


async def test_post_processors():
    """Post-processors are applied in order; None drops a frame, as an error does."""

    async def skip(message):
        return None if message == "skip" else [message]

    options = {"post_processors": [json.loads, skip]}
    async with Feed() as feed, connection(feed, **options) as client:
        for frame in ('"skip"', "not JSON", '"taken"'):
            await feed.sockets[0].send(frame)
        assert await client.receive(PATIENCE) == ["taken"]


async def test_auth_is_missing():
    """A message can't be signed by nobody."""
    async with Feed() as feed, connection(feed) as client:
        with pytest.raises(ValueError, match="auth"):
            await client.send({}, auth=True)


async def test_rate_limit():
    """Limits hold for sends and pings together (N5)."""
    limits = [RateLimit("default", 2, 3600)]
    async with Feed() as feed, connection(feed, limits=limits) as client:
        await client.send("1")
        await client.ping(PATIENCE)
        for more in (client.send("2"), client.ping()):
            waiting = await blocked(more)
            waiting.cancel()
        # What the client has sent is there before its pong.
        await within(await feed.sockets[0].ping())
        assert feed.got[0].qsize() == 1


async def test_rate_limit_after_an_outage():
    """A ping takes no room while there is no link to send it on."""
    options = {
        "limits": [RateLimit("default", 1, 3600)],
        "delays": lambda: iter([3600]),
    }
    async with Feed() as feed, connection(feed, **options) as client:
        events = client.events()
        client.websocket.transport.abort()
        await within(next_event(events, "disconnected"))
        pinging = await blocked(client.ping())
        await within(client.limiter.acquire())
        pinging.cancel()


async def test_close_while_limited():
    """Close ends a send and a ping that wait for the rate."""
    limits = [RateLimit("default", 1, 3600)]
    async with Feed() as feed, connection(feed, limits=limits) as client:
        await client.send("1")
        waiting = [await blocked(more) for more in (client.send("2"), client.ping())]
        await within(client.close())
        for task in waiting:
            with pytest.raises(Closed, match="1000"):
                await within(task)


async def test_ping(transport):
    """Ping returns the seconds to the server and back, and keeps its temper."""
    async with (
        Feed() as feed,
        connection(feed, transport=transport, close_timeout=0.05) as client,
    ):
        assert 0 < await client.ping() < PATIENCE
        feed.sockets[0].transport.pause_reading()
        with pytest.raises(TimeoutError):
            await client.ping(0.01)


async def test_ping_without_a_link():
    """Ping keeps its timeout while there is no link, and for the next one's rate."""
    limits = [RateLimit("default", 1, 3600)]
    options = {"limits": limits, "delays": lambda: iter([3600])}
    async with Feed() as feed, connection(feed, **options) as client:
        await client.send("1")
        with pytest.raises(TimeoutError, match="no pong"):
            await within(client.ping(0.01))
        events = client.events()
        client.websocket.transport.abort()
        await within(next_event(events, "disconnected"))
        with pytest.raises(TimeoutError, match="no pong"):
            await within(client.ping(0.01))


async def test_ping_blocked():
    """Ping keeps its timeout, and leaves no task, while the network takes nothing."""
    options = {"compression": None, "close_timeout": 0.05}
    async with Feed() as feed, connection(feed, **options) as client:
        feed.sockets[0].transport.pause_reading()
        sending = await blocked(client.send(b"x" * 50_000_000))
        before = asyncio.all_tasks()
        with pytest.raises(TimeoutError, match="no pong"):
            await within(client.ping(0.01))
        pinging = await blocked(client.ping())
        pinging.cancel()
        await asyncio.wait({pinging})
        assert asyncio.all_tasks() == before
        sending.cancel()


async def test_ping_lost():
    """Ping raises if the link is lost before the pong."""
    async with Feed() as feed, connection(feed) as client:
        feed.sockets[0].transport.pause_reading()
        pinging = await blocked(client.ping())
        client.websocket.transport.abort()
        with pytest.raises(ConnectionError, match="before the pong"):
            await within(pinging)


async def test_last_recv_time():
    """last_recv_time is 0 before the first message, and then when that came."""
    async with Feed() as feed, connection(feed) as client:
        assert client.last_recv_time == 0
        await feed.sockets[0].send("now")
        await client.receive(PATIENCE)
        now = datetime.datetime.now().timestamp()
        assert now - PATIENCE < client.last_recv_time <= now
        # However often it is asked.
        assert len({client.last_recv_time for _ in range(100)}) == 1


async def test_send_waits():
    """Send waits for the link that comes after the one that was lost."""
    async with Feed() as feed, connection(feed) as client:
        feed.answers = [(503, {})] * 3
        events = client.events()
        client.websocket.transport.abort()
        await within(next_event(events, "disconnected"))
        await within(client.send({"a": 1}))
        assert await feed.message(1) == {"a": 1}


@pytest.mark.parametrize("timeout", [None, PATIENCE])
async def test_cancelled_receive(timeout):
    """Cancelling receive is a cancellation, and loses no message (A5)."""
    async with Feed() as feed, connection(feed) as client:
        for i in range(50):
            waiting = asyncio.ensure_future(client.receive(timeout))
            await asyncio.sleep(0)  # Let it wait.
            await feed.sockets[0].send(str(i))
            for _ in range(i % 7):
                await asyncio.sleep(0)  # Any stage of the delivery.
            if waiting.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await waiting
                assert await client.receive(PATIENCE) == str(i)
            else:
                assert waiting.result() == str(i)


async def test_close_while_receiving(transport):
    """Close wakes who receives, and may be called again (N2)."""
    async with Feed() as feed, connection(feed, transport=transport) as client:
        waiting = asyncio.ensure_future(client.receive())
        await asyncio.sleep(0)  # Let it wait.
        await within(client.close(4000, "enough"))
        await within(client.close())
        with pytest.raises(Closed, match="1000"):
            await waiting
        await within(feed.sockets[0].wait_closed())
        assert feed.sockets[0].close_code == 4000


@pytest.mark.parametrize(
    ("code", "reason"), [(5000, ""), (999, ""), (1005, ""), (1000, "\u20ac" * 42)]
)
async def test_close_with_what_cannot_be_sent(code, reason, transport):
    """Close raises if it can't be sent, and then all is as it was."""
    async with Feed() as feed, connection(feed, transport=transport) as client:
        with pytest.raises(ValueError, match="expected"):
            await within(client.close(code, reason))
        await client.send("1")
        assert await feed.message() == 1


@pytest.mark.parametrize(
    ("code", "reason"), [(1001, ""), (1011, ""), (3000, ""), (4999, "\u20ac" * 41)]
)
async def test_close_with_what_can_be_sent(code, reason, transport):
    """Close sends the code and the reason."""
    async with Feed() as feed, connection(feed, transport=transport) as client:
        await within(client.close(code, reason))
        await within(feed.sockets[0].wait_closed())
        assert feed.sockets[0].close_code == code
        assert feed.sockets[0].close_reason == reason


async def test_close_with_a_full_queue(transport):
    """Close doesn't wait for a reader that doesn't read."""
    async with Feed() as feed, connection(feed, transport=transport) as client:
        for i in range(3000):
            await feed.sockets[0].send(str(i))
        await within(client.close())
        assert [int(frame) async for frame in client][:1000] == list(range(1000))


async def test_close_before_connect():
    """Close before connect leaves nothing, and it can't be used then."""
    async with Feed() as feed:
        client = connection(feed)
        await client.close()
        with pytest.raises(RuntimeError):
            await client.connect()


async def test_cancelled_connect():
    """Cancelling connect closes it."""
    async with Feed() as feed:
        client = connection(feed)
        connecting = asyncio.ensure_future(client.connect())
        await asyncio.sleep(0)  # Let it begin.
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        assert client.state is State.CLOSED


async def test_closed_while_connecting():
    """Connect raises if it is closed before there is a link."""
    async with Feed() as feed:
        client = connection(feed)
        connecting = asyncio.ensure_future(client.connect())
        await asyncio.sleep(0)  # Let it begin.
        await client.close()
        with pytest.raises(Closed, match="1000"):
            await connecting


async def test_send_before_connect():
    """Send before connect is a mistake."""
    with pytest.raises(RuntimeError, match="connect"):
        await Connection("ws://127.0.0.1:1/").send("x")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """
    Return a server's context with a certificate that nobody vouches for.
    """
    folder = tmp_path_factory.mktemp("tls")
    names = "subjectAltName=IP:127.0.0.1"
    command = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test -keyout key"
    command = [program("openssl"), *command.split(), "-out", "cert", "-addext", names]
    subprocess.run(command, check=True, cwd=folder, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert", folder / "key")
    return context, folder / "cert"


async def test_tls(certificate):
    """A context is used as it is, and left as it was (J20)."""
    context, path = certificate
    ours = ssl.create_default_context(cafile=str(path))
    ours.check_hostname = False
    async with Feed(ssl=context) as feed, connection(feed, ssl=ours):
        assert ours.check_hostname is False
        assert len(feed.sockets) == 1


async def test_tls_unknown(certificate):
    """A certificate that nobody vouches for ends it, unless verify_ssl is off."""
    async with Feed(ssl=certificate[0]) as feed:
        client = connection(feed)
        with pytest.raises(Closed, match="certificate"):
            await client.connect(timeout=PATIENCE)
        async with connection(feed, verify_ssl=False):
            assert len(feed.sockets) == 1
    gc.collect()


def test_tls_contradiction():
    """A context and verify_ssl=False can't both be meant."""
    with pytest.raises(ValueError, match="both"):
        Connection("wss://x", ssl=ssl.create_default_context(), verify_ssl=False)


async def test_callbacks():
    """A callback hears of events until it is removed, and may raise."""
    heard = []

    def hear(event):
        heard.append(event.name)
        raise LookupError

    async with Feed() as feed:
        client = connection(feed)
        client.on("connected", hear)
        remove = client.on("disconnected", hear)
        await client.connect()
        remove()
        events = client.events()
        await feed.sockets[0].close(1012)
        await within(next_event(events, "connected"))
        assert heard == ["connected", "connected"]
        await client.close()
        assert [e.name async for e in events] == ["gap", "closed"]


async def test_memory_iteration():
    """The server's end in memory is iterated over as that of websockets is."""
    server = MemoryServer()
    async with Connection("ws://test", transport=server.connect) as client:
        websocket = await server.accept(PATIENCE)
        await client.send("a")
        await client.send(b"b")
    assert [message async for message in websocket] == ["a", b"b"]


@pytest.mark.parametrize("message", [{"a": 1}, None, 5])
async def test_memory_message(message):
    """What is no message is refused by the end in memory that sends it."""
    server = MemoryServer()
    async with Connection("ws://test", transport=server.connect) as client:
        websocket = await server.accept(PATIENCE)
        with pytest.raises(TypeError, match="expected text or bytes, got"):
            await websocket.send(message)
        await websocket.send("good")
        assert await client.receive(PATIENCE) == "good"


async def test_memory_option():
    """An option that no transport has is refused in memory, too."""
    options = {"transport": MemoryServer().connect, "max_size": None}
    async with Connection("ws://test", **options):
        pass
    client = Connection("ws://test", **options, max_sise=1)
    with pytest.raises(Closed, match="TypeError: there is no option 'max_sise'"):
        await within(client.connect())
