"""
The dialect channelsmultiplexer.v1, line by line of the wire protocol.
"""

from __future__ import annotations

import asyncio
import json

import pytest
from channels.exceptions import AcceptConnection, DenyConnection
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import URLRouter
from django.urls import path, re_path
from django.utils.functional import lazystr
from django.utils.safestring import mark_safe

from channelsmultiplexer.testing import MultiplexCommunicator, Refused
from consumers import Text
from guard import soon
from puppets import Puppets
from v1_client import connect, demultiplexer, nothing_left, open_puppet, processed

both_dialects = pytest.mark.parametrize("dialect", ["v1", "bare"])


@pytest.fixture(autouse=True)
async def _nothing_left():
    with nothing_left():
        yield


@pytest.fixture
async def client(puppets):
    """A client that can open puppets under ``p`` and an echo under ``echo``."""
    async with connect({"p": puppets, "echo": Text.as_asgi()}) as client:
        yield client


# The handshake


async def test_subprotocol():
    """The dialect is chosen among whatever else the client offers."""
    application = demultiplexer({})
    client = MultiplexCommunicator(application, subprotocols=["graphql-ws"])
    async with client:
        assert client.subprotocol == "channelsmultiplexer.v1"


async def test_no_subprotocol():
    """A client that doesn't offer the dialect gets the bare one, and no hello."""
    application = demultiplexer({"echo": Text.as_asgi()})
    client = MultiplexCommunicator(application, dialect="bare", subprotocols=["a"])
    async with client:
        await client.stream("echo").send_json(1)
        assert await client.stream("echo").receive_json() == 1
        assert not client.unread


async def test_hello():
    """The first frame tells the limits of the socket."""
    application = demultiplexer({}, max_streams=7, heartbeat=12.5)
    async with MultiplexCommunicator(application) as client:
        hello = {"op": "hello", "heartbeat": 12.5, "max_streams": 7}
        assert await client.receive_frame() == hello


async def test_hello_by_default():
    """A socket has a heartbeat of 25 seconds, and 100 streams."""
    async with MultiplexCommunicator(demultiplexer({})) as client:
        hello = {"op": "hello", "heartbeat": 25, "max_streams": 100}
        assert await client.receive_frame() == hello


async def test_nothing_starts_by_itself(client, puppets):
    """No application starts before a stream is opened to it."""
    await processed(client)
    assert not puppets.started


async def test_dialects_side_by_side():
    """The same applications serve a client of each dialect at once."""
    application = demultiplexer({"echo": Text.as_asgi()})
    async with (
        MultiplexCommunicator(application) as v1,
        MultiplexCommunicator(application, dialect="bare") as bare,
    ):
        for client in [v1, bare]:
            stream = await client.open("echo")
            await stream.send_json([stream.name])
            assert await stream.receive_json() == [stream.name]


@both_dialects
async def test_connect_closes(dialect, puppets):
    """connect() refuses the socket by closing it, and nothing starts."""

    async def close(self):
        await self.close(4401)

    application = demultiplexer({"p": puppets}, connect=close)
    with pytest.raises(Refused) as caught:
        await MultiplexCommunicator(application, dialect=dialect).__aenter__()
    assert caught.value.code == 4401
    assert not puppets.started


@both_dialects
async def test_websocket_connect_closes(dialect, puppets):
    """websocket_connect() refuses the socket by closing it and not calling super."""

    async def close(self, message):
        await self.close(4401)

    application = demultiplexer({"p": puppets}, websocket_connect=close)
    with pytest.raises(Refused) as caught:
        await MultiplexCommunicator(application, dialect=dialect).__aenter__()
    assert caught.value.code == 4401
    assert not puppets.started


@both_dialects
async def test_connect_denies(dialect, puppets):
    """connect() refuses the socket by raising DenyConnection."""

    async def deny(self):
        raise DenyConnection

    application = demultiplexer({"p": puppets}, connect=deny)
    with pytest.raises(Refused):
        await MultiplexCommunicator(application, dialect=dialect).__aenter__()
    assert not puppets.started


@both_dialects
async def test_connect_accepts(dialect):
    """connect() may raise AcceptConnection; the socket is accepted once."""

    async def accept(self):
        raise AcceptConnection

    application = demultiplexer({"echo": Text.as_asgi()}, connect=accept)
    async with MultiplexCommunicator(application, dialect=dialect) as client:
        stream = await client.open("echo")
        await stream.send_json(1)
        assert await stream.receive_json() == 1


# Opening


async def test_opened(client, puppets):
    """A stream is opened when its application accepts."""
    stream = client.open_nowait("p")
    puppet = await puppets.next()
    await processed(client)
    assert not stream._is_open  # no public way to ask
    await puppet.accept()
    await stream.wait_open()
    assert stream.subprotocol is None


async def test_opened_with_subprotocol(client, puppets):
    """An application chooses among the subprotocols that its stream offers."""
    stream = client.open_nowait("p", ["a", "b"])
    puppet = await puppets.next()
    assert puppet.scope["subprotocols"] == ["a", "b"]
    await puppet.accept("b")
    await stream.wait_open()
    assert stream.subprotocol == "b"


async def test_no_subprotocols(client, puppets):
    """What the socket offers is not offered to an application."""
    _, puppet = await open_puppet(client, puppets)
    assert puppet.scope["subprotocols"] == []


PATHS = [
    ("p", "/", b""),
    ("p/", "/", b""),
    ("/p/x", "/x", b""),
    ("p/42/?since=9", "/42/", b"since=9"),
    ("p?a=1&b=2", "/", b"a=1&b=2"),
    ("p/a//b/", "/a//b/", b""),
    ("p/caf%C3%A9/a%2Fb?q=%C3%A9", "/café/a/b", b"q=%C3%A9"),
    ("%70/x", "/x", b""),
    ("p/a?b?c", "/a", b"b?c"),
]


@pytest.mark.parametrize(("url", "expected_path", "expected_query"), PATHS)
async def test_path(client, puppets, url, expected_path, expected_query):
    """What follows an application's name is its path, decoded, and its query."""
    _, puppet = await open_puppet(client, puppets, url)
    assert puppet.scope["path"] == expected_path
    assert puppet.scope["query_string"] == expected_query


async def test_scope():
    """All else in an application's scope is what the socket's has."""
    puppets = Puppets()
    application = demultiplexer({"p": puppets})
    async with MultiplexCommunicator(application, user="anna") as client:
        _, puppet = await open_puppet(client, puppets)
        assert puppet.scope["type"] == "websocket"
        assert puppet.scope["user"] == "anna"
        assert puppet.scope["demultiplexer_cls"].applications == {"p": puppets}
        puppet.finish()


async def test_scope_is_a_copy(client, puppets):
    """What an application puts in its scope is in no other's."""
    _, first = await open_puppet(client, puppets)
    first.scope["mine"] = 1
    _, second = await open_puppet(client, puppets)
    assert "mine" not in second.scope


async def test_no_application(client):
    """A stream to no application is refused with 4404."""
    with pytest.raises(Refused) as caught:
        await client.open("nobody/1/")
    assert caught.value.code == 4404


ROOT_PATHS = [
    ("other/1/?a=2", "/other/1/"),
    ("/other", "/other"),
    ("", "/"),
    ("/", "/"),
    ("?a=2", "/"),
]


@pytest.mark.parametrize(("url", "expected"), ROOT_PATHS)
async def test_root_application(url, expected):
    """The application named "" receives the whole of a path that is no other's."""
    puppets = Puppets()
    async with connect({"": puppets, "echo": Text.as_asgi()}) as client:
        _, puppet = await open_puppet(client, puppets, url)
        assert puppet.scope["path"] == expected


async def test_root_application_comes_last():
    """The application named "" doesn't receive what another's name claims."""
    puppets = Puppets()
    async with connect({"": puppets, "echo": Text.as_asgi()}) as client:
        await client.open("echo/1/")
        assert not puppets.started


async def test_root_application_bare():
    """The application named "" is not started in the bare dialect."""
    puppets = Puppets()
    application = demultiplexer({"": puppets, "echo": Text.as_asgi()})
    async with MultiplexCommunicator(application, dialect="bare") as client:
        await client.stream("echo").send_json(1)
        await client.stream("echo").receive_json()
        assert not puppets.started


async def test_url_router():
    """A URLRouter routes by what follows its name."""
    puppets = Puppets()
    router = URLRouter([path("<int:pk>/", puppets)])
    async with connect({"rooms": router}) as client:
        _, puppet = await open_puppet(client, puppets, "rooms/42/?since=9")
        assert puppet.scope["url_route"]["kwargs"] == {"pk": 42}
        puppet.finish()


async def test_url_router_as_root():
    """Every path of a URLRouter that is the root application opens as a stream."""
    puppets = Puppets()
    router = URLRouter([re_path(r"^ws/rooms/(?P<name>\w+)/$", puppets)])
    async with connect({"": router}) as client:
        _, puppet = await open_puppet(client, puppets, "/ws/rooms/lobby/")
        assert puppet.scope["url_route"]["kwargs"] == {"name": "lobby"}
        puppet.finish()


async def test_url_router_around():
    """What the URLRouter around the demultiplexer has left of a path is forgotten."""
    puppets = Puppets()
    inner = demultiplexer({"rooms": URLRouter([path("<int:pk>/", puppets)])})
    outer = URLRouter([path("ws/", URLRouter([path("<slug:tenant>/", inner)]))])
    async with MultiplexCommunicator(outer, "/ws/acme/") as client:
        _, puppet = await open_puppet(client, puppets, "rooms/42/")
        expected = {"tenant": "acme", "pk": 42}
        assert puppet.scope["url_route"]["kwargs"] == expected
        puppet.finish()


async def test_url_router_without_route(caplog):
    """A path that a URLRouter doesn't know is refused with 4404, and is no error."""
    async with connect({"rooms": URLRouter([])}) as client:
        with pytest.raises(Refused) as caught:
            await client.open("rooms/42/")
        assert caught.value.code == 4404
    assert not caplog.records


class Rendering(AsyncWebsocketConsumer):
    async def connect(self):
        await self.accept()
        await self.send(mark_safe("<p>hello</p>"))
        await self.close(4403, lazystr("not a member"))


async def test_text_of_django():
    """A consumer may send what a template renders, and close with a lazy reason."""
    async with connect({"page": Rendering.as_asgi()}) as client:
        stream = await client.open("page")
        assert await stream.receive_text() == "<p>hello</p>"
        assert await stream.wait_closed() == (4403, "not a member")


async def test_one_path_many_times(client):
    """One path may be open many times, each stream with its own number."""
    first, second = [await client.open("echo/1/") for _ in range(2)]
    await second.send_json("second")
    await first.send_json("first")
    assert await first.receive_json() == "first"
    assert await second.receive_json() == "second"


# Refusing


REFUSALS = [
    (None, None, 4403, ""),
    (1000, None, 1000, ""),
    (4401, None, 4401, ""),
    (4401, "log in first", 4401, "log in first"),
    (1013, "later", 1013, "later"),
]


@pytest.mark.parametrize(("code", "reason", "end", "end_reason"), REFUSALS)
async def test_refused(client, puppets, code, reason, end, end_reason):
    """A stream is refused with the application's code, or with 4403."""
    stream = client.open_nowait("p")
    await (await puppets.next()).close(code, reason)
    assert await stream.wait_closed() == (end, end_reason)
    with pytest.raises(Refused):
        await stream.wait_open()


async def test_refused_by_returning(client, puppets):
    """An application that returns without an answer refuses its stream."""
    stream = client.open_nowait("p")
    (await puppets.next()).finish()
    await stream.wait_closed(4403)


@pytest.mark.parametrize(("error", "code"), [(DenyConnection, 4403), (KeyError, 1011)])
async def test_consumer_raises_in_connect(error, code):
    """A consumer refuses by DenyConnection; any other exception is a 1011."""

    class Raising(AsyncWebsocketConsumer):
        async def connect(self):
            raise error

    async with connect({"a": Raising}) as client:
        with pytest.raises(Refused) as caught:
            await client.open("a")
        assert caught.value.code == code


async def test_consumer_accepts_by_raising():
    """A consumer accepts by AcceptConnection."""

    class Accepting(Text):
        async def connect(self):
            raise AcceptConnection("b")

    async with connect({"a": Accepting}) as client:
        assert (await client.open("a", ["b"])).closed is None


async def test_max_streams():
    """A stream beyond max_streams is refused with 4429, until one has ended."""
    async with connect({"echo": Text.as_asgi()}, max_streams=2) as client:
        first = await client.open("echo")
        await client.open("echo")
        with pytest.raises(Refused) as caught:
            await client.open("echo")
        assert caught.value.code == 4429
        await first.close()
        await first.wait_closed()
        await client.open("echo")


async def test_max_streams_counts_applications(puppets):
    """A stream whose application has not ended counts, though it is closed."""
    async with connect({"p": puppets}, max_streams=1) as client:
        stream, puppet = await open_puppet(client, puppets)
        await puppet.close()
        await stream.wait_closed()
        await client.open_nowait("p").wait_closed(4429)


# Data


async def test_payload(client, puppets):
    """A payload reaches the application as text, as the client wrote it."""
    _, puppet = await open_puppet(client, puppets)
    await client.send_frame('{"stream": "1", "payload": {"a":  1.50, "é":"\\u00e9"}}')
    expected = {"type": "websocket.receive", "text": '{"a":  1.50, "é":"\\u00e9"}'}
    assert await puppet.receive() == expected


async def test_text(client, puppets):
    """Text reaches the application as it is, though it be JSON."""
    _, puppet = await open_puppet(client, puppets)
    await client.send_frame({"stream": "1", "text": "[1]"})
    assert await puppet.receive() == {"type": "websocket.receive", "text": "[1]"}


async def test_binary(client, puppets):
    """Bytes reach the application, and the client, as they are."""
    stream, puppet = await open_puppet(client, puppets)
    await client.send_frame(b"\x011\0\xff")
    assert await puppet.receive() == {"type": "websocket.receive", "bytes": b"\0\xff"}
    await puppet.send({"type": "websocket.send", "bytes": b"\xfe\0"})
    assert await stream.receive_bytes() == b"\xfe\0"


@pytest.mark.parametrize("text", ['{"a":  1.50}', "no JSON", "", "NaN", "null"])
async def test_text_to_client(client, puppets, text):
    """Text reaches the client as the application wrote it."""
    stream, puppet = await open_puppet(client, puppets)
    await puppet.send({"type": "websocket.send", "text": text})
    assert await stream.receive_text() == text


async def test_pipelining(client, puppets):
    """Data sent before the application accepts waits for it, in order."""
    stream = client.open_nowait("p")
    for value in range(5):
        await stream.send_json(value)
    puppet = await puppets.next()
    await processed(client)
    assert await puppet.receive() == {"type": "websocket.connect"}
    await puppet.accept()
    received = [(await puppet.receive())["text"] for _ in range(5)]
    assert received == ["0", "1", "2", "3", "4"]


async def test_order(client, puppets):
    """A stream's frames come to the client in the order of their sending."""
    stream, puppet = await open_puppet(client, puppets)
    for value in range(5):
        await puppet.send_json(value)
    await puppet.close()
    await stream.wait_closed()
    assert [await stream.receive_json() for _ in range(5)] == [0, 1, 2, 3, 4]


async def test_op_is_never_data(client, puppets):
    """A frame that has an op is no data, whatever else it has."""
    _, puppet = await open_puppet(client, puppets)
    await client.send_frame({"op": "ping", "stream": "1", "payload": 1})
    assert await client.receive_frame() == {"op": "pong"}
    await client.send_frame({"stream": "1", "payload": 2})
    assert (await puppet.receive())["text"] == "2"


async def test_send_before_accept(client, puppets):
    """An application that sends before it accepts gets an exception."""
    client.open_nowait("p")
    puppet = await puppets.next()
    with pytest.raises(RuntimeError, match=r"expected websocket\.accept"):
        await puppet.send_json(1)


# Closing


async def test_close(client, puppets):
    """A close reaches the application, and closed the client once that has ended."""
    stream, puppet = await open_puppet(client, puppets)
    await stream.close(4001, "bye")
    expected = {"type": "websocket.disconnect", "code": 4001, "reason": "bye"}
    assert await puppet.receive() == expected
    await processed(client)
    assert stream.closed is None
    puppet.finish()
    assert await stream.wait_closed() == (4001, "bye")


async def test_close_by_default(client, puppets):
    """A close without a code is a normal one."""
    _, puppet = await open_puppet(client, puppets)
    await client.send_frame({"op": "close", "stream": "1"})
    expected = {"type": "websocket.disconnect", "code": 1000, "reason": ""}
    assert await puppet.receive() == expected


async def test_close_after_data(client, puppets):
    """What was sent before a close reaches the application before it."""
    stream, puppet = await open_puppet(client, puppets)
    await stream.send_json(1)
    await stream.close()
    assert (await puppet.receive())["text"] == "1"
    assert (await puppet.receive())["type"] == "websocket.disconnect"


CLOSES = [
    (None, None, (1000, "")),
    (1000, None, (1000, "")),
    (1001, None, (1001, "")),
    (4001, "enough", (4001, "enough")),
    (1013, "é\ud800", (1013, "é\ud800")),
]


@pytest.mark.parametrize(("code", "reason", "end"), CLOSES)
async def test_closed(client, puppets, code, reason, end):
    """The application's code and reason reach the client."""
    stream, puppet = await open_puppet(client, puppets)
    await puppet.close(code, reason)
    assert await stream.wait_closed() == end


async def test_closed_and_disconnected(client, puppets):
    """An application that has closed receives its disconnect, and nothing else."""
    stream, puppet = await open_puppet(client, puppets)
    await stream.send_json("unread")
    await processed(client)
    await puppet.close(4001)
    message = await puppet.receive()
    assert (message["type"], message["code"]) == ("websocket.disconnect", 4001)


async def test_closed_by_returning(client, puppets):
    """An application that returns ends its stream normally."""
    stream, puppet = await open_puppet(client, puppets)
    puppet.finish()
    await stream.wait_closed(1000)


async def test_application_raises(client, puppets, caplog):
    """An application that raises ends its own stream with 1011, and is logged."""
    stream, puppet = await open_puppet(client, puppets)
    other = await client.open("echo")
    puppet.finish(ZeroDivisionError())
    await stream.wait_closed(1011)
    await other.send_json(1)
    assert await other.receive_json() == 1
    assert "The application of stream '1' raised" in caplog.text


async def test_slow_disconnect():
    """A slow disconnect() delays its own stream's closed and no other stream."""
    puppets = Puppets()
    async with connect({"p": puppets, "echo": Text.as_asgi()}) as client:
        slow, puppet = await open_puppet(client, puppets)
        other = await client.open("echo")
        await slow.close()
        await other.send_json(1)
        assert await other.receive_json() == 1
        await other.close()
        await other.wait_closed(1000)
        assert slow.closed is None
        puppet.finish()
        await slow.wait_closed(1000)


async def test_close_timeout(puppets, caplog):
    """An application that outlives its time is cancelled, its stream closed once."""
    async with connect({"p": puppets}, application_close_timeout=0.01) as client:
        stream, puppet = await open_puppet(client, puppets)
        await stream.close(4001)
        await stream.wait_closed(4001)
        assert puppet.has_ended.is_set()
    assert "has not ended 0.01 seconds after" in caplog.text


async def test_close_timeout_after_own_close(puppets):
    """An application that closed has the same time, though the client knows."""
    async with connect({"p": puppets}, application_close_timeout=0.01) as client:
        stream, puppet = await open_puppet(client, puppets)
        await puppet.close(4001)
        await stream.wait_closed(4001)
        await soon(puppet.has_ended.wait())


async def test_socket_closed_by_client(client, puppets):
    """Closing the socket disconnects every stream with its code."""
    _, first = await open_puppet(client, puppets)
    _, second = await open_puppet(client, puppets)
    disconnecting = asyncio.create_task(client.disconnect(4001))
    for puppet in [first, second]:
        message = await puppet.receive()
        assert (message["type"], message["code"]) == ("websocket.disconnect", 4001)
        puppet.finish()
    await disconnecting


async def test_socket_closed_by_server(puppets):
    """A socket that the server closes disconnects every stream."""

    async def close_socket(self, message, stream_name):
        await self.close(4002)

    async with connect({"p": puppets}, socket_close=close_socket) as client:
        stream, puppet = await open_puppet(client, puppets)
        await puppet.send({"type": "socket.close"})
        assert await client.wait_closed() == (4002, "")
        assert (await puppet.receive())["type"] == "websocket.disconnect"
        assert stream.closed == (4002, "")


# Liveness


async def test_ping(client):
    """A ping is answered by a pong."""
    await client.send_frame({"op": "ping"})
    assert await client.receive_frame() == {"op": "pong"}


async def test_pong(client):
    """A pong is answered by nothing."""
    await client.send_frame({"op": "pong"})
    await processed(client)


# Bad frames


OPEN = {"op": "open", "path": "p"}
BAD_FRAMES = [
    ("nonsense", "invalid-json", None),
    ("", "invalid-json", None),
    ([], "invalid-envelope", None),
    ({}, "invalid-envelope", None),
    ({"stream": "1"}, "invalid-envelope", "1"),
    ({"stream": "1", "payload": 1, "text": "1"}, "invalid-envelope", "1"),
    ({"stream": 1, "payload": 1}, "invalid-envelope", None),
    ({"stream": "", "payload": 1}, "invalid-envelope", None),
    ({"stream": "2", "payload": 1}, "unknown-stream", "2"),
    ({"stream": "p", "payload": 1}, "unknown-stream", "p"),
    ({"stream": "01", "payload": 1}, "unknown-stream", "01"),
    (b"", "invalid-envelope", None),
    (b"\x022", "invalid-envelope", None),
    (b"\x012data", "unknown-stream", "2"),
    ({"op": "close", "stream": "2"}, "unknown-stream", "2"),
    ({"op": "close", "stream": "1", "code": 999}, "invalid-envelope", "1"),
    ({"op": "close", "stream": "1", "reason": 124 * "x"}, "invalid-envelope", "1"),
    ({"op": "close"}, "invalid-envelope", None),
    ({"op": "credit", "stream": "1"}, "unknown-op", "1"),
    ({"op": ""}, "unknown-op", None),
    ({"op": None}, "invalid-envelope", None),
    ({"op": "hello", "heartbeat": 1, "max_streams": 1}, "unknown-op", None),
    ({"op": "opened", "stream": "1"}, "unknown-op", None),
    ({"op": "closed", "stream": "1"}, "unknown-op", None),
    ({**OPEN, "stream": "1"}, "stream-in-use", "1"),
    ({**OPEN, "stream": "0"}, "invalid-envelope", None),
    ({**OPEN, "stream": "02"}, "invalid-envelope", None),
    ({**OPEN, "stream": "-2"}, "invalid-envelope", None),
    ({**OPEN, "stream": "2.0"}, "invalid-envelope", None),
    ({**OPEN, "stream": "\u0662"}, "invalid-envelope", None),
    ({**OPEN, "stream": "p"}, "invalid-envelope", None),
    ({**OPEN, "stream": ""}, "invalid-envelope", None),
    ({**OPEN, "stream": 19 * "9"}, "invalid-envelope", None),
    ({**OPEN, "stream": 2}, "invalid-envelope", None),
    (OPEN, "invalid-envelope", None),
    ({"op": "open", "stream": "2"}, "invalid-envelope", "2"),
    ({"op": "open", "stream": "2", "path": 8193 * "x"}, "invalid-envelope", "2"),
    ({**OPEN, "stream": "2", "subprotocols": "a"}, "invalid-envelope", "2"),
]


@pytest.mark.parametrize(("frame", "code", "stream"), BAD_FRAMES)
async def test_bad_frame(client, frame, code, stream):
    """A bad frame is answered by an error and ends nothing."""
    echo = await client.open("echo")
    await client.send_frame(json.dumps(frame) if isinstance(frame, list) else frame)
    error = await client.receive_frame()
    assert error.pop("message")
    assert error == {"op": "error", "stream": stream, "code": code}
    await echo.send_json(1)
    assert await echo.receive_json() == 1


async def test_bad_open_starts_nothing(client, puppets):
    """An id that doesn't grow opens nothing, also if it was never used."""
    await client.send_frame({"op": "open", "stream": "5", "path": "nobody"})
    assert (await client.receive_frame())["op"] == "closed"
    for stream in ["5", "4", "1"]:
        await client.send_frame({"op": "open", "stream": stream, "path": "p"})
        assert (await client.receive_frame())["code"] == "stream-in-use"
    assert not puppets.started


async def test_ids_may_skip(client):
    """An id may be any greater than those before."""
    for name in ["7", "999999999999999999"]:
        stream = client.stream(name)
        await client.send_frame({"op": "open", "stream": name, "path": "echo"})
        await stream.wait_open()


LATE = [{"stream": "1", "payload": 1}, b"\x011x", {"op": "close", "stream": "1"}]


@pytest.mark.parametrize("frame", LATE)
async def test_late_frame(frame):
    """A frame for a stream that has ended is dropped in silence, and not counted."""
    async with connect({"echo": Text.as_asgi()}, max_invalid_frames=1) as client:
        stream = await client.open("echo")
        await stream.close()
        await stream.wait_closed()
        await client.send_frame(frame)
        await processed(client)


async def test_frame_for_skipped_id(client):
    """A frame for an id below one that was opened is dropped in silence."""
    await client.send_frame({"op": "open", "stream": "5", "path": "nobody"})
    assert (await client.receive_frame())["op"] == "closed"
    await client.send_frame({"stream": "3", "payload": 1})
    await processed(client)


async def test_max_invalid_frames():
    """After so many bad frames the socket is closed with 4400."""
    async with connect({"echo": Text.as_asgi()}, max_invalid_frames=3) as client:
        stream = await client.open("echo")
        for _ in range(3):
            await client.send_frame("nonsense")
            assert (await client.receive_frame())["op"] == "error"
        await client.wait_closed(4400)
        assert stream.closed[0] == 4400


# A full inbox


async def test_overflow_closes(puppets):
    """A stream whose inbox is full ends with 1013, and no other."""
    applications = {"p": puppets, "echo": Text.as_asgi()}
    limits = {"inbox_limit": 1, "overflow": "close"}
    async with connect(applications, **limits) as client:
        full, _ = await open_puppet(client, puppets)
        for value in range(3):
            await full.send_json(value)
        await full.wait_closed(1013)
        other = await client.open("echo")
        await other.send_json(1)
        assert await other.receive_json() == 1


async def test_overflow_of_a_stream_that_is_not_open(puppets):
    """A stream whose inbox fills up before it opens ends with 1013."""
    limits = {"inbox_limit": 1, "overflow": "close"}
    async with connect({"p": puppets}, **limits) as client:
        full = client.open_nowait("p")
        for value in range(3):
            await full.send_json(value)
        await full.wait_closed(1013)
        puppet = await puppets.next()
        assert await puppet.receive() == {"type": "websocket.connect"}
        assert (await puppet.receive())["code"] == 1013


async def test_overflow_waits(puppets):
    """An inbox that is full stops the socket, and nothing is lost."""
    async with connect({"p": puppets}, inbox_limit=1) as client:
        stream, puppet = await open_puppet(client, puppets)
        for value in range(3):
            await stream.send_json(value)
        await client.send_frame({"op": "ping"})
        received = [(await puppet.receive())["text"] for _ in range(3)]
        assert received == ["0", "1", "2"]
        assert await client.receive_frame() == {"op": "pong"}


# The hooks of a subclass


async def test_hook_accept():
    """websocket_accept sees every application that accepts, and may forbid it."""

    async def accept(self, message, stream_name):
        seen.append((stream_name, message["subprotocol"]))
        await type(self).__base__.websocket_accept(self, message, stream_name)

    seen = []
    applications = {"echo": Text.as_asgi()}
    async with connect(applications, websocket_accept=accept) as client:
        await client.open("echo")
        await client.open("echo")
    assert seen == [("1", None), ("2", None)]


async def test_hook_send():
    """websocket_send sees what an application sends, and may change it."""

    async def send(self, message, stream_name):
        message = {**message, "text": f"[{message['text']},{stream_name}]"}
        await type(self).__base__.websocket_send(self, message, stream_name)

    async with connect({"echo": Text.as_asgi()}, websocket_send=send) as client:
        stream = await client.open("echo")
        await stream.send_json("a")
        assert await stream.receive_json() == ["a", 1]


async def test_hook_close():
    """websocket_close is told of every stream's end, once."""

    async def close(self, message, stream_name):
        seen.append((stream_name, message.get("code")))
        await type(self).__base__.websocket_close(self, message, stream_name)

    seen = []
    puppets = Puppets()
    async with connect({"p": puppets}, websocket_close=close) as client:
        refused = client.open_nowait("p")
        await (await puppets.next()).close()
        await refused.wait_closed()
        stream, puppet = await open_puppet(client, puppets)
        puppet.finish(KeyError())
        await stream.wait_closed()
    assert seen == [("1", None), ("2", 1011)]


async def test_hook_receive_json():
    """receive_json sees the envelope of every data frame, and of no other."""

    async def receive_json(self, content, **kwargs):
        seen.append(content)
        content = {**content, "payload": content["payload"] + 1}
        await type(self).__base__.receive_json(self, content, **kwargs)

    seen = []
    applications = {"echo": Text.as_asgi()}
    async with connect(applications, receive_json=receive_json) as client:
        stream = await client.open("echo")
        await stream.send_json(1)
        assert await stream.receive_json() == 2
    assert seen == [{"stream": "1", "payload": 1}]


async def test_hooked_binary():
    """Bytes go both ways under hooks that see everything."""

    async def receive_json(self, content, **kwargs):
        raise AssertionError("bytes are no JSON")

    async with connect({"echo": Text.as_asgi()}, receive_json=receive_json) as client:
        stream = await client.open("echo")
        await stream.send_bytes(b"\0\xff")
        assert await stream.receive_bytes() == b"\0\xff"


@pytest.mark.parametrize(("frame", "code", "stream"), BAD_FRAMES)
async def test_hooked_bad_frame(frame, code, stream):
    """Under hooks that see everything a bad frame is answered as without."""

    async def receive_json(self, content, **kwargs):
        await type(self).__base__.receive_json(self, content, **kwargs)

    applications = {"echo": Text.as_asgi()}
    async with connect(applications, receive_json=receive_json) as client:
        await client.open("echo")
        await client.send_frame(json.dumps(frame) if isinstance(frame, list) else frame)
        error = await client.receive_frame()
        assert (error["code"], error["stream"]) == (code, stream)


async def test_handler(puppets):
    """A message of its own type reaches the subclass with the stream's id."""

    async def chat_badge(self, message, stream_name):
        seen.append((message["count"], stream_name))

    seen = []
    async with connect({"p": puppets}, chat_badge=chat_badge) as client:
        _, puppet = await open_puppet(client, puppets)
        await puppet.send({"type": "chat.badge", "count": 3})
    assert seen == [(3, "1")]
