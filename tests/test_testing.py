"""
The test client that speaks streams.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars

import channels.db
import pytest
from channels.generic.websocket import AsyncWebsocketConsumer

from channelsmultiplexer.testing import Ended, MultiplexCommunicator, Refused
from guard import soon
from v1_client import demultiplexer, nothing_left

variable = contextvars.ContextVar("variable", default="unset")


class Echo(AsyncWebsocketConsumer):
    """Sends back what it receives."""

    async def receive(self, text_data=None, bytes_data=None):
        """Send it back."""
        await self.send(text_data, bytes_data)


class Chosen(AsyncWebsocketConsumer):
    """Chooses a subprotocol."""

    async def connect(self):
        """Accept with it."""
        await self.accept("b")


class Refusing(AsyncWebsocketConsumer):
    """Refuses."""

    async def connect(self):
        """Refuse with a code and a reason."""
        await self.close(4401, "no")


class Socket:
    """
    An ASGI application, no demultiplexer, that lives as long as its socket.
    """

    def __init__(self, *sent):
        self.sent = sent
        self.received = []

    async def __call__(self, scope, receive, send):
        """Send what there is to send, and receive until the end."""
        self.scope = scope
        self.variable = variable.get()
        for message in self.sent:
            await send(message)
        while not self.received or self.received[-1]["type"] != "websocket.disconnect":
            self.received.append(await receive())


ACCEPT = {"type": "websocket.accept"}
CLOSE = {"type": "websocket.close", "code": 4400, "reason": "enough"}


@pytest.fixture(autouse=True)
async def _nothing_left():
    with nothing_left():
        yield


@pytest.fixture
async def client(puppets):
    """A v1 client, past its hello."""
    applications = {
        "echo": Echo.as_asgi(),
        "chosen": Chosen.as_asgi(),
        "refusing": Refusing.as_asgi(),
        "puppet": puppets,
    }
    async with MultiplexCommunicator(demultiplexer(applications)) as client:
        assert (await client.receive_frame())["op"] == "hello"
        yield client
        assert not client.unread


@pytest.fixture
async def stream(client):
    """An open stream of an echo."""
    return await client.open("echo/1/")


@pytest.fixture
async def bare():
    """A bare client of two echoes."""
    application = demultiplexer({"echo": Echo.as_asgi(), "other": Echo.as_asgi()})
    async with MultiplexCommunicator(application, dialect="bare") as client:
        yield client


def connect(application, **arguments):
    """Return a client of an application that is no demultiplexer."""
    return MultiplexCommunicator(application, dialect="bare", **arguments)


# The handshake


async def test_scope():
    """The scope has what the arguments say."""
    arguments = {
        "headers": [(b"origin", b"https://example.org")],
        "user": "anna",
        "session": {"k": 1},
    }
    application = Socket(ACCEPT)
    async with connect(application, path="/caf%C3%A9/?a=%20", **arguments):
        assert application.scope == {
            "type": "websocket",
            "path": "/café/",
            "query_string": b"a=%20",
            "subprotocols": [],
            **arguments,
        }


async def test_scope_given():
    """``scope`` adds keys, and replaces them."""
    application = Socket(ACCEPT)
    async with connect(application, scope={"path": "/x", "client": ["::1", 1]}):
        assert application.scope["path"] == "/x"
        assert application.scope["client"] == ["::1", 1]


async def test_no_user():
    """Neither user nor session is in the scope unless it is given."""
    application = Socket(ACCEPT)
    async with connect(application):
        assert not {"user", "session"} & application.scope.keys()


@pytest.mark.parametrize(
    ("dialect", "own"), [("v1", ["channelsmultiplexer.v1"]), ("bare", [])]
)
async def test_subprotocols(dialect, own):
    """A client offers its dialect, and then what the test offers."""
    application = Socket(ACCEPT)
    async with MultiplexCommunicator(application, dialect=dialect, subprotocols=["a"]):
        assert application.scope["subprotocols"] == [*own, "a"]


async def test_accepted():
    """What the socket was accepted with can be read."""
    accept = {**ACCEPT, "subprotocol": "a", "headers": [(b"x", b"y")]}
    async with connect(Socket(accept)) as client:
        assert client.subprotocol == "a"
        assert client.response_headers == [(b"x", b"y")]


async def test_socket_refused():
    """A socket that is refused raises the code and the reason."""
    with pytest.raises(Refused, match="the socket ended with 4400: enough") as caught:
        await connect(Socket(CLOSE)).__aenter__()
    assert (caught.value.code, caught.value.reason) == (4400, "enough")


async def test_own_context():
    """The application doesn't see the context variables of the test."""
    variable.set("set")
    application = Socket(ACCEPT)
    async with connect(application):
        assert application.variable == "unset"


# Streams


async def test_open(client):
    """Streams are opened under the numbers 1, 2 and so on."""
    assert (await client.open("echo/")).name == "1"
    assert (await client.open("echo/")).name == "2"


async def test_open_subprotocol(client):
    """A stream has the subprotocol that its application chose."""
    assert (await client.open("chosen", ["a", "b"])).subprotocol == "b"


async def test_open_refused(client):
    """A stream that is refused raises the code and the reason."""
    with pytest.raises(Refused, match=r"stream 1 \(refusing\) ended with 4401: no"):
        await client.open("refusing")


async def test_open_without_answer(client, puppets):
    """A stream that is neither accepted nor refused raises a TimeoutError."""
    with pytest.raises(TimeoutError, match=r"stream 1 \(puppet\) waited 0 s for its"):
        await client.open("puppet", timeout=0)
    (await puppets.next()).finish()


async def test_open_nowait(client):
    """A stream that isn't open yet can be sent to."""
    stream = client.open_nowait("echo")
    await stream.send_json(1)
    await stream.wait_open()
    assert await stream.receive_json() == 1


async def test_open_bare(bare):
    """To open a stream of a bare client is to name it."""
    assert await bare.open("echo") is bare.stream("echo")


async def test_stream_by_hand(client):
    """A stream that was opened by a frame can be given its frames."""
    stream = client.stream("7")
    await client.send_frame({"op": "open", "stream": "7", "path": "echo"})
    await stream.wait_open()
    await stream.send_json(7)
    assert await stream.receive_json() == 7


# Data


@pytest.mark.parametrize("value", [None, 1.5, "a", [1], {"a": {"b": None}}])
async def test_json(stream, value):
    """JSON comes back as it was sent."""
    await stream.send_json(value)
    assert await stream.receive_json() == value


async def test_nan(stream):
    """A NaN is not sent for JSON."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        await stream.send_json(float("nan"))


@pytest.mark.parametrize("text", ["no JSON", "", '{"a":  1.50}'])
async def test_text(stream, text):
    """Text comes back as it was sent, JSON or not."""
    await stream.send_text(text)
    assert await stream.receive_text() == text


async def test_bytes(stream):
    """Bytes come back as they were sent."""
    await stream.send_bytes(b"\0\xff")
    assert await stream.receive_bytes() == b"\0\xff"


async def test_bare_data(bare):
    """A bare client sends and receives all that a v1 client does."""
    stream = bare.stream("echo")
    await stream.send_json({"a": 1})
    await stream.send_text("no JSON")
    await stream.send_bytes(b"\0")
    assert await stream.receive_json() == {"a": 1}
    assert await stream.receive_text() == "no JSON"
    assert await stream.receive_bytes() == b"\0"


async def test_bare_keys():
    """A bare client uses the keys it is told to."""
    keys = {"stream_key": "channel", "payload_key": "data"}
    application = demultiplexer({"echo": Echo.as_asgi()}, **keys)
    async with connect(application, **keys) as client:
        await client.stream("echo").send_json(1)
        assert await client.stream("echo").receive_json() == 1


@pytest.mark.parametrize(
    ("sent", "receive", "message"),
    [
        (b"x", "receive_json", r"expected JSON on stream 1 \(echo/1/\), got b'x'"),
        (b"x", "receive_text", "expected str"),
        ("x", "receive_json", "got 'x'"),
        ("1", "receive_bytes", "expected bytes"),
    ],
)
async def test_wrong_kind(stream, sent, receive, message):
    """A frame of another kind than awaited is an AssertionError."""
    send = stream.send_text if isinstance(sent, str) else stream.send_bytes
    await send(sent)
    with pytest.raises(AssertionError, match=message):
        await getattr(stream, receive)()


async def test_other_streams(client, stream):
    """Frames of other streams are kept for them."""
    other = await client.open("echo/2/")
    await other.send_json("other")
    await stream.send_json("mine")
    assert await stream.receive_json() == "mine"
    assert await other.receive_json() == "other"


async def test_other_streams_bare(bare):
    """Frames of a stream that nobody has asked for yet are kept for it."""
    await bare.send_frame({"stream": "other", "payload": 1})
    await bare.stream("echo").send_json(2)
    assert await bare.stream("echo").receive_json() == 2
    assert await bare.stream("other").receive_json() == 1


async def test_nothing(stream):
    """receive_nothing tells that nothing came."""
    assert await stream.receive_nothing(0.01)


async def test_something(stream):
    """receive_nothing tells that something came, and leaves it there."""
    await stream.send_json(1)
    assert not await stream.receive_nothing(1)
    assert await stream.receive_json() == 1


# Frames of no stream


async def test_receive_frame(client):
    """Frames that belong to no stream are received in order, and decoded."""
    await client.send_frame({"op": "ping"})
    await client.send_frame("garbage")
    await client.send_frame(b"")
    assert await client.receive_frame() == {"op": "pong"}
    assert (await client.receive_frame())["code"] == "invalid-json"
    assert (await client.receive_frame())["code"] == "invalid-envelope"


@pytest.mark.parametrize("frame", ["no JSON", b"\0"])
async def test_receive_frame_of_no_dialect(frame):
    """A frame that is no JSON is received as it is."""
    key = "text" if isinstance(frame, str) else "bytes"
    sent = {"type": "websocket.send", key: frame}
    async with connect(Socket(ACCEPT, sent)) as client:
        assert await client.receive_frame() == frame


@pytest.mark.parametrize(
    "frames",
    [
        ['{"op":"closed","stream":"1"}', '{"op":"closed","stream":"1"}'],
        ['{"op":"closed","stream":"1"}', '{"stream":"1","payload":1}'],
        ['{"op":"opened","stream":"1"}', '{"op":"opened","stream":"1"}'],
        ['{"op":"closed","stream":"1"}', '{"op":"opened","stream":"1"}'],
        ['{"stream":"1","payload":1}'],
    ],
)
async def test_illegal_frames(frames):
    """A frame that no server may send a stream is none of that stream's."""
    sent = [{"type": "websocket.send", "text": frame} for frame in frames]
    client = MultiplexCommunicator(Socket(ACCEPT, *sent))
    client.stream("1")
    async with client:
        assert await client.receive_frame() is not None
        assert not client.unread


# The end


async def test_close(client, stream):
    """A stream that is closed ends with its code and its reason."""
    await stream.close(4000, "bye")
    assert await stream.wait_closed() == (4000, "bye")
    assert stream.closed == (4000, "bye")
    assert client.closed is None


async def test_close_with_other_code(stream):
    """wait_closed raises an AssertionError if the code is another."""
    await stream.close(4000, "bye")
    with pytest.raises(AssertionError, match=r"expected 1000, stream 1 .* 4000: bye"):
        await stream.wait_closed(code=1000)


async def test_receive_after_end(client, puppets):
    """What came before the end is received, and then the end is raised."""
    stream = client.open_nowait("puppet")
    puppet = await puppets.next()
    await puppet.accept()
    await puppet.send_json(1)
    await puppet.close(4000)
    puppet.finish()
    await stream.wait_closed(4000)
    assert await stream.receive_json() == 1
    with pytest.raises(Ended, match=r"stream 1 \(puppet\) ended with 4000: no reason"):
        await stream.receive_json()


async def test_streams_end_with_socket():
    """A stream has the socket's code if the socket is closed."""
    async with connect(Socket(ACCEPT, CLOSE)) as client:
        assert await client.stream("a").wait_closed() == (4400, "enough")
        assert await client.wait_closed(4400) == (4400, "enough")


async def test_application_returns():
    """A socket that its application leaves is closed with 1006."""

    async def leaving(scope, receive, send):
        await send(ACCEPT)

    async with connect(leaving) as client:
        await client.wait_closed(1006)


async def test_disconnect():
    """The application receives one websocket.disconnect, with the test's code."""
    application = Socket(ACCEPT)
    async with connect(application) as client:
        await client.disconnect(4000)
    assert application.received == [
        {"type": "websocket.connect"},
        {"type": "websocket.disconnect", "code": 4000},
    ]


async def test_disconnect_after_close():
    """An application that has closed receives a websocket.disconnect."""
    application = Socket(ACCEPT, CLOSE)
    async with connect(application) as client:
        await client.wait_closed(4400)
    assert application.received[-1] == {"type": "websocket.disconnect", "code": 4400}


async def test_send_crossing_close():
    """What the application sends once the socket is closed is dropped."""
    late = {"type": "websocket.send", "text": "late"}
    async with connect(Socket(ACCEPT, CLOSE, late)) as client:
        await client.wait_closed(4400)
    assert not client.unread


# What the application does wrong


@pytest.mark.parametrize(
    "sent",
    [
        [{"type": "websocket.send", "text": ""}],
        [ACCEPT, ACCEPT],
        [ACCEPT, {"type": "websocket.nonsense"}],
    ],
)
async def test_illegal_message(sent):
    """A message that no server takes raises in the application."""
    with pytest.raises(RuntimeError, match="a server allows no 'websocket"):
        async with connect(Socket(*sent)) as client:
            await client.receive_frame()


class Failing(Socket):
    """
    An application that raises when its first frame comes, or its end.
    """

    async def __call__(self, scope, receive, send):
        """Accept, receive and raise."""
        await receive()
        await send(ACCEPT)
        await receive()
        raise ZeroDivisionError


async def test_error_while_waiting():
    """What the application raises is raised by what waits, and once."""
    async with connect(Failing()) as client:
        await client.send_frame("x")
        with pytest.raises(ZeroDivisionError):
            await client.receive_frame()


async def test_error_while_sending():
    """What the application has raised is raised by what sends."""
    async with connect(Failing()) as client:
        await client.send_frame("x")
        with pytest.raises(ZeroDivisionError):
            await client.receive_nothing(1)
        with pytest.raises(ZeroDivisionError):
            await client.send_frame("x")


async def test_error_at_the_end():
    """What the application raises in the end is raised in the end."""
    with pytest.raises(ZeroDivisionError):
        async with connect(Failing()):
            pass


async def test_error_of_the_test():
    """The test's own error is not hidden by the application's."""
    with pytest.raises(KeyError):
        async with connect(Failing()):
            raise KeyError


@pytest.mark.parametrize("stubborn", [1, 2])
async def test_application_that_hangs(stubborn):
    """An application that outlives its disconnect is cancelled, and that raised."""

    async def hanging(scope, receive, send):
        await send(ACCEPT)
        for _ in range(stubborn):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        cancelled.set()

    cancelled = asyncio.Event()
    async with connect(hanging) as client:
        with pytest.raises(TimeoutError, match=r"not ended 0.01 s after"):
            await client.disconnect(timeout=0.01)
        assert cancelled.is_set()


# Waiting


async def test_timeout(client, stream):
    """A timeout says which stream waited, and what is there for others."""
    other = await client.open("echo/2/")
    await other.send_json("x")
    assert not await other.receive_nothing(1)
    expected = r"stream 1 \(echo/1/\) waited 0 s .*: stream 2 \(echo/2/\) has .*x"
    with pytest.raises(TimeoutError, match=expected):
        await stream.receive_json(timeout=0)


async def test_timeout_cancels_nothing(stream):
    """A stream can be used after a timeout."""
    with pytest.raises(TimeoutError, match="unread elsewhere: nothing"):
        await stream.receive_json(timeout=0)
    await stream.send_json(1)
    assert await stream.receive_json() == 1


async def test_cancelled_receive(stream):
    """A receive that is cancelled loses nothing."""
    receiving = asyncio.create_task(stream.receive_json())
    await asyncio.sleep(0)  # it waits
    await stream.send_json(1)
    receiving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await receiving
    assert await stream.receive_json() == 1


async def test_streams_wait_at_once(client):
    """Any number of streams can be waited for at once."""
    streams = [await client.open(f"echo/{number}") for number in range(3)]
    received = asyncio.gather(*[stream.receive_json() for stream in streams])
    for stream in reversed(streams):
        await stream.send_json(stream.name)
    assert await soon(received) == ["1", "2", "3"]


# The database


async def test_connections_kept():
    """Channels closes no database connections while a communicator is open."""
    closing = channels.db.close_old_connections
    first = await connect(Socket(ACCEPT)).__aenter__()
    second = await connect(Socket(ACCEPT)).__aenter__()
    await first.__aexit__(None, None, None)
    assert channels.db.close_old_connections is not closing
    await second.__aexit__(None, None, None)
    assert channels.db.close_old_connections is closing
