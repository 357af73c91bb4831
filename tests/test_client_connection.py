"""
One WebSocket that is always there, against servers that would rather it weren't.
"""

from __future__ import annotations

import asyncio
import datetime
import gc
import itertools
import json
import ssl
import subprocess

import pytest

from channelsmultiplexer.client import Closed, Connection, RateLimit, State
from feed import PATIENCE, Feed, at_once, never, within
from requirement import program


@pytest.fixture(autouse=True)
async def nothing_left():
    """
    Fail the test if it leaves a task behind.
    """
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    if left:
        await asyncio.wait(left, timeout=1)
    assert not [task for task in left if not task.done()]


async def next_event(events, name):
    """
    Return the next event of that name.
    """
    async for event in events:
        if event.name == name:
            return event
    raise AssertionError(f"ended without {name}")


def connection(feed, **options):
    return Connection(feed.url, **{"delays": at_once, **options})


@pytest.fixture(params=["websockets", "picows"])
def transport(request):
    """
    Return the name of a transport that is installed.
    """
    if request.param == "picows":
        pytest.importorskip("picows")
    return request.param


async def test_receive(transport):
    """Frames arrive as they were sent: text is text, whatever it looks like (N6)."""
    async with Feed() as feed, connection(feed, transport=transport) as client:
        for frame in ("123", "null", b"123", ""):
            await feed.sockets[0].send(frame)
            assert await client.receive(PATIENCE) == frame


@pytest.mark.parametrize("code", [1000, 1001, 1012, 1013])
async def test_comes_back(code, transport):
    """A server that closes, normally or not, is connected to again (A1)."""
    async with Feed() as feed, connection(feed, transport=transport) as client:
        events = client.events()
        await feed.sockets[0].close(code, "later")
        event = await within(next_event(events, "disconnected"))
        assert (event.code, event.reason) == (code, "later")
        await (await feed.socket(1)).send("again")
        assert await client.receive(PATIENCE) == "again"


@pytest.mark.parametrize("code", [1008, 4401, 4403])
async def test_fatal_code(code, transport):
    """A code that says the same next time ends it, with code and reason (J6, J9)."""
    async with Feed() as feed, connection(feed, transport=transport) as client:
        waiting = asyncio.ensure_future(client.receive())
        await feed.sockets[0].close(code, "never")
        with pytest.raises(Closed, match="never") as caught:
            await within(waiting)
        assert caught.value.code == code
        assert caught.value.__cause__ is not None
        assert len(feed.sockets) == 1


@pytest.mark.parametrize("status", [401, 403, 404, 410])
async def test_fatal_status(status, transport):
    """A handshake that is refused for good isn't tried again (J9)."""
    async with Feed() as feed, connection(feed, transport=transport) as client:
        feed.answers = [(status, {})]
        await feed.sockets[0].close(1012)
        with pytest.raises(Closed, match=f"HTTP {status}"):
            await client.receive(PATIENCE)
        assert len(feed.requests) == 2


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_retry_after(status, transport):
    """Retry-After is the least delay before the next attempt."""
    async with Feed() as feed, connection(feed, transport=transport) as client:
        events = client.events()
        feed.answers = [(status, {"Retry-After": "77"})]
        await feed.sockets[0].close(1012)
        first = await within(next_event(events, "retrying"))
        second = await within(next_event(events, "retrying"))
        assert (first.delay, second.delay) == (0, 77)


async def test_retry_after_date():
    """Retry-After can be a date."""
    when = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
    date = when.strftime("%a, %d %b %Y %H:%M:%S GMT")
    async with Feed() as feed, connection(feed) as client:
        events = client.events()
        feed.answers = [(503, {"Retry-After": date})]
        await feed.sockets[0].close(1012)
        await within(next_event(events, "retrying"))
        event = await within(next_event(events, "retrying"))
        assert 3500 < event.delay <= 3600


async def test_refused_port(transport):
    """Connect to a port where nobody is raises a ConnectionError at once (J7)."""
    async with Feed() as feed:
        pass
    with pytest.raises(ConnectionError, match="1006"):
        await within(connection(feed, transport=transport).connect())


async def test_connect_timeout():
    """Connect with a timeout goes on trying until then (J7)."""
    async with Feed() as feed:
        feed.answers = [(503, {})] * 10_000
        client = connection(feed)
        with pytest.raises(TimeoutError):
            await within(client.connect(timeout=0.1))
        assert len(feed.requests) > 1
        assert client.state is State.CLOSED


async def test_connect_retries():
    """Connect with a timeout returns when an attempt succeeds."""
    async with Feed() as feed:
        feed.answers = [(503, {})] * 3
        client = connection(feed)
        await client.connect(timeout=PATIENCE)
        assert client.state is State.CONNECTED
        await client.close()


async def test_many_attempts():
    """A thousand failed attempts are no deeper a stack than one (J7)."""
    async with Feed() as feed, connection(feed) as client:
        feed.answers = [(503, {})] * 1000
        await feed.sockets[0].close(1012)
        await (await feed.socket(1)).send("at last")
        assert await asyncio.wait_for(client.receive(), 30) == "at last"


async def test_delays_end():
    """When there are no more delays the reason is raised to all who wait (J6)."""
    async with Feed() as feed, connection(feed, delays=never) as client:
        waiting = asyncio.ensure_future(client.receive())
        await feed.sockets[0].close(1012, "restart")
        with pytest.raises(Closed, match="restart"):
            await within(waiting)
        with pytest.raises(Closed, match="1012 restart"):
            await client.send("too late")


async def test_normal_end():
    """Iterating ends when a server that won't be called again closes normally (N1)."""
    async with Feed() as feed, connection(feed, delays=never) as client:
        await feed.sockets[0].send("last")
        await feed.sockets[0].close(1000)
        assert [frame async for frame in client] == ["last"]
        with pytest.raises(Closed) as caught:
            await client.receive()
        assert caught.value.code == 1000


@pytest.mark.parametrize(("stable_after", "delays"), [(0, [1, 1, 1]), (60, [1, 2, 3])])
async def test_delays_start_anew(stable_after, delays):
    """Delays grow over links that don't last, and start anew after one (J8, J10)."""
    made = []

    def scaled():
        made.append(None)
        # Too short to wait for, long enough to tell apart.
        return (n / 1e6 for n in itertools.count(1))

    async with (
        Feed() as feed,
        connection(feed, delays=scaled, stable_after=stable_after) as client,
    ):
        events = client.events()
        got = []
        for i in range(3):
            await (await feed.socket(i)).close(1012)
            event = await within(next_event(events, "retrying"))
            got.append(round(event.delay * 1e6))
        assert got == delays


async def test_accepts_and_closes():
    """A server that accepts and closes isn't called without pause."""

    async def close(socket):
        await socket.close(1011)

    async with Feed(close) as feed:
        client = Connection(feed.url, delays=lambda: iter([0, 0, 3600]))
        events = client.events()
        await client.connect()
        for _ in range(3):
            event = await within(next_event(events, "retrying"))
        assert event.delay == 3600
        assert len(feed.sockets) == 3
        await client.close()


async def test_vanished(transport):
    """A link that breaks without a word is a loss with code 1006."""
    async with Feed() as feed, connection(feed, transport=transport) as client:
        events = client.events()
        feed.sockets[0].transport.abort()
        event = await within(next_event(events, "disconnected"))
        assert event.code == 1006
        await feed.socket(1)


async def test_half_closed(transport):
    """A server that stops writing and doesn't close is a loss."""
    async with Feed() as feed, connection(feed, transport=transport) as client:
        events = client.events()
        feed.sockets[0].transport.write_eof()
        assert (await within(next_event(events, "disconnected"))).code == 1006
        await feed.socket(1)


async def test_silence(transport):
    """A link on which nothing comes is dropped after the message timeout."""
    async with (
        Feed() as feed,
        connection(
            feed, transport=transport, message_timeout=0.05, close_timeout=0.05
        ) as client,
    ):
        event = await within(next_event(client.events(), "disconnected"))
        assert isinstance(event.error, TimeoutError)
        await feed.socket(1)


async def test_heartbeat_healthy(transport):
    """Heartbeats leave a link alone that answers, however quiet it is (J3, J4, N4)."""
    async with (
        Feed() as feed,
        connection(feed, transport=transport, heartbeat=0.02) as client,
    ):
        # Ten heartbeats are sent and answered meanwhile.
        with pytest.raises(TimeoutError):
            await client.receive(0.2)
        assert client.connections == 1


async def test_heartbeat_dead():
    """Heartbeats drop a link whose other end has stopped (N3)."""
    quick = {"heartbeat": 0.05, "close_timeout": 0.05}
    async with Feed() as feed, connection(feed, **quick) as client:
        events = client.events()
        feed.sockets[0].transport.pause_reading()
        event = await within(next_event(events, "disconnected"))
        assert event.code in (1006, 1011)
        await feed.socket(1)


async def test_uri_is_asked():
    """A function for the address, and for headers, is asked at each attempt."""
    async with Feed() as feed:
        numbers = itertools.count()

        async def uri():
            return f"{feed.url}?token={next(numbers)}"

        def headers():
            return {"X-Attempt": str(next(numbers))}

        async with Connection(uri, headers=headers, delays=at_once):
            await feed.sockets[0].close(1012)
            await feed.socket(1)
        asked = [(r.path, r.headers["X-Attempt"]) for r in feed.requests]
        assert asked == [("/?token=0", "1"), ("/?token=2", "3")]


async def test_redirect(transport):
    """A redirect is followed."""
    async with Feed() as feed, Feed() as other:
        other.answers = [(302, {"Location": feed.url})]
        async with connection(other, transport=transport):
            assert len(feed.sockets) == 1


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


async def test_on_connect_hangs():
    """on_connect has as long as the handshake."""

    async def login(link):
        await asyncio.Event().wait()

    async with Feed() as feed:
        client = connection(feed, on_connect=login, open_timeout=0.05)
        with pytest.raises(Closed, match="on_connect took too long"):
            await within(client.connect())


async def test_processors():
    """Processors are applied in order, sync or async, to what goes out and comes in."""

    async def add(message):
        message["steps"].append("add")
        return message

    def sign(message):
        return {**message, "steps": [*message["steps"], "sign"]}

    options = {
        "pre_processors": [add, lambda m: {**m, "steps": [*m["steps"], "last"]}],
        "auth": sign,
        "post_processors": [json.loads, lambda m: None if m == "skip" else [m]],
    }
    async with Feed() as feed, connection(feed, **options) as client:
        message = {"steps": []}
        await client.send(message, auth=True)
        assert (await feed.message())["steps"] == ["add", "last", "sign"]
        await client.send(message)
        assert (await feed.message())["steps"] == ["add", "last"]
        assert message == {"steps": []}
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
    limits = [RateLimit("default", 2, 0.1)]
    async with Feed() as feed, connection(feed, limits=limits) as client:
        start = asyncio.get_running_loop().time()
        for _ in range(3):
            await client.send("x")
        await client.ping(PATIENCE)
        await client.send("x")
        assert asyncio.get_running_loop().time() - start >= 0.2


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


async def test_ping_lost():
    """Ping raises if the link is lost before the pong."""
    async with Feed() as feed, connection(feed) as client:
        feed.sockets[0].transport.pause_reading()
        pinging = asyncio.ensure_future(client.ping())
        await asyncio.sleep(0)  # Let it send.
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
    """Cancelling receive is a cancellation, and loses no message (J, A5)."""
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


async def test_send_before_connect():
    """Send before connect is a mistake."""
    with pytest.raises(RuntimeError, match="connect"):
        await Connection("ws://127.0.0.1:1/").send("x")


async def test_fragments(transport):
    """A message in fragments, compressed, is one message (J12)."""
    async with Feed() as feed, connection(feed, transport=transport) as client:
        await feed.sockets[0].send(["frag", "ment", "ed" * 1000])
        assert await client.receive(PATIENCE) == "fragmented" + "ed" * 999


async def test_max_size(transport):
    """max_size holds for what comes out of compression (J19)."""
    async with (
        Feed() as feed,
        connection(feed, transport=transport, max_size=100_000) as client,
    ):
        events = client.events()
        await feed.sockets[0].send("x" * 10_000_000)
        event = await within(next_event(events, "disconnected"))
        assert event.code in (1006, 1009)
        await feed.socket(1)


async def test_large_message():
    """A large message is received if max_size allows it (J19)."""
    async with Feed() as feed, connection(feed, max_size=2**25) as client:
        await feed.sockets[0].send("x" * 2**24)
        assert len(await client.receive(PATIENCE)) == 2**24


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


# Python 3.10 leaves a transport unclosed when a TLS handshake fails.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
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
        assert [e.name async for e in events] == ["closed"]


async def test_renewal(transport):
    """A link is replaced before it is closed, and none is left (J5, A3, A4)."""
    due = [asyncio.Event(), asyncio.Event()]

    async def when():
        await due[len(feed.sockets) - 1].wait()

    async with (
        Feed() as feed,
        connection(feed, transport=transport, renew_after=when) as client,
    ):
        events = client.events()
        due[0].set()
        second = await feed.socket(1)
        for i in range(3):
            for socket in feed.sockets:
                await socket.send(str(i))
            assert await client.receive(PATIENCE) == str(i)
        await within(next_event(events, "renewed"))
        await within(feed.sockets[0].wait_closed())
        await second.send("after")
        assert await client.receive(PATIENCE) == "after"
        assert client.connections == 2


async def test_renewal_refused():
    """A link that can't be renewed goes on."""

    async def when():
        await due.wait()

    due = asyncio.Event()
    async with Feed() as feed, connection(feed, renew_after=when) as client:
        events = client.events()
        feed.answers = [(403, {})]
        due.set()
        event = await within(next_event(events, "error"))
        assert "HTTP 403" in str(event.error)
        await feed.sockets[0].send("alive")
        assert await client.receive(PATIENCE) == "alive"


async def test_renewal_after_seconds():
    """renew_after can be a number; overlap bounds how long both stay."""
    async with (
        Feed() as feed,
        connection(feed, renew_after=0.01, overlap=0.01) as client,
    ):
        await within(next_event(client.events(), "renewed"))
        await within(feed.sockets[0].wait_closed())
        assert client.state is State.CONNECTED


async def test_lost_during_renewal():
    """A link that is lost while its successor is being opened is no end."""

    async def when():
        if feed.sockets[1:]:
            await asyncio.Event().wait()

    async with Feed() as feed:

        async def login(link):
            if feed.sockets[1:]:
                feed.sockets[0].transport.abort()

        options = {"renew_after": when, "on_connect": login}
        async with connection(feed, **options) as client:
            await within(next_event(client.events(), "renewed"))
            await feed.sockets[1].send("on the new one")
            assert await client.receive(PATIENCE) == "on the new one"


async def test_garbage_handshake():
    """What isn't a WebSocket server is an error that says so."""

    async def garbage(reader, writer):
        writer.write(b"SSH-2.0-OpenSSH\r\n")
        writer.close()

    server = await asyncio.start_server(garbage, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = Connection(f"ws://127.0.0.1:{port}/", delays=at_once)
    with pytest.raises(Closed, match="InvalidMessage"):
        await within(client.connect())
    server.close()
    await server.wait_closed()


async def test_invalid_frames(transport):
    """Bytes that are no WebSocket frame are a loss."""
    async with Feed() as feed, connection(feed, transport=transport) as client:
        events = client.events()
        feed.sockets[0].transport.write(b"\xff" * 100)
        assert (await within(next_event(events, "disconnected"))).code in (1002, 1006)
        await feed.socket(1)
