"""
The bare dialect, line by line, and what one application can do to another: nothing.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import weakref

import pytest
from channels.exceptions import DenyConnection
from channels.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
)
from channels.layers import get_channel_layer
from channels.routing import URLRouter
from channels.testing import WebsocketCommunicator
from django.urls import path

from channelsmultiplexer import AsyncJsonWebsocketDemultiplexer
from consumers import (
    Closes,
    Echo,
    Hangs,
    NeverAccepts,
    Raises,
    Refuses,
    Returns,
    SyncEcho,
    Text,
    refuses,
)


class Demultiplexer(AsyncJsonWebsocketDemultiplexer):
    """
    With little patience.
    """

    application_close_timeout = 0.05


async def connect(*args, **applications):
    """
    Return the client of a socket that was accepted.
    """
    (cls,) = args or (Demultiplexer,)
    client = WebsocketCommunicator(cls.as_asgi(**applications), "/ws/")
    accepted, _ = await client.connect()
    assert accepted
    return client


async def send(client, stream, payload):
    await client.send_json_to({"stream": stream, "payload": payload})


async def receive(client, stream):
    """
    Return the payload of the next frame, which is of *stream*.
    """
    frame = await client.receive_json_from()
    assert frame["stream"] == stream
    return frame["payload"]


async def is_alive(client, stream="echo"):
    """
    Tell if a stream that echoes still does.
    """
    await send(client, stream, "alive?")
    return await receive(client, stream) == "alive?"


@pytest.fixture(autouse=True)
async def nothing_left():
    """
    Fail the test if it leaves a task behind.
    """
    before = asyncio.all_tasks()
    yield
    assert asyncio.all_tasks() - before == {asyncio.current_task()}


# 1. At websocket.connect every named application starts


async def test_starts_all():
    """Every named application is started at connect, but the one named ''."""
    started = []

    def application(name):
        async def run(scope, receive, send):
            started.append((name, (await receive())["type"]))
            await send({"type": "websocket.accept"})

        return run

    names = ("a", "b", "")
    client = await connect(**{name: application(name) for name in names})
    await client.disconnect()
    assert started == [("a", "websocket.connect"), ("b", "websocket.connect")]


async def test_connect_denies():
    """connect() can refuse the socket before an application starts."""

    class Private(Demultiplexer):
        async def connect(self):
            raise DenyConnection

    client = WebsocketCommunicator(Private.as_asgi(echo=Echo), "/")
    assert await client.connect() == (False, 1000)
    await client.disconnect()


# 2. Accepting and refusing the socket


async def test_first_accepts():
    """The socket is accepted with the first application that accepts."""
    client = await connect(never=NeverAccepts, echo=Echo)
    assert await is_alive(client)
    await client.disconnect()


async def test_accept_passes_on():
    """The socket gets the subprotocol and the headers of the first to accept."""

    class Chooses(AsyncWebsocketConsumer):
        async def connect(self):
            await self.accept("soap", [(b"x-by", b"chooses")])

    application = Demultiplexer.as_asgi(a=Chooses, echo=Echo)
    client = WebsocketCommunicator(application, "/", subprotocols=["soap"])
    assert await client.connect() == (True, "soap")
    assert client.response_headers == [(b"x-by", b"chooses")]
    await client.disconnect()


async def test_accept_with_a_subprotocol_not_offered(caplog):
    """A subprotocol that the client didn't offer fails no other's socket."""

    class Chooses(Echo):
        async def connect(self):
            await self.accept("soap")

    application = Demultiplexer.as_asgi(chooses=Chooses, echo=Echo)
    client = WebsocketCommunicator(application, "/", subprotocols=["rest"])
    assert await client.connect() == (True, None)
    assert await is_alive(client, "chooses")
    assert await is_alive(client)
    await client.disconnect()
    assert "did not offer subprotocol 'soap'" in caplog.text


async def test_accept_that_the_server_refuses():
    """An accept that the server doesn't take ends its own application only."""
    sent, turn = asyncio.Queue(), asyncio.Event()

    async def odd(scope, receive, send):
        try:
            await send({"type": "websocket.accept", "headers": [("x-odd", "text")]})
        finally:
            turn.set()

    async def even(scope, receive, send):
        await turn.wait()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "0"})
        await receive()
        await receive()

    async def server(message):
        if "headers" in message:
            raise TypeError("expected bytes")
        sent.put_nowait(message)

    incoming = asyncio.Queue()
    incoming.put_nowait({"type": "websocket.connect"})
    application = Demultiplexer.as_asgi(odd=odd, even=even)
    scope = {"type": "websocket", "path": "/"}
    serving = asyncio.ensure_future(application(scope, incoming.get, server))
    messages = [await asyncio.wait_for(sent.get(), 1) for _ in range(2)]
    assert [message["type"] for message in messages] == [
        "websocket.accept",
        "websocket.send",
    ]
    incoming.put_nowait({"type": "websocket.disconnect", "code": 1006})
    await asyncio.wait_for(serving, 1)


async def test_accept_that_is_given_up():
    """An application that gives up its accept stops no other from sending."""
    sent, given = asyncio.Queue(), asyncio.Event()

    async def gives_up(scope, receive, send):
        accept = asyncio.ensure_future(send({"type": "websocket.accept"}))
        await given.wait()
        accept.cancel()
        await receive()
        await receive()

    async def speaks(scope, receive, send):
        await given.wait()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "0"})

    async def server(message):
        if message["type"] == "websocket.accept":
            given.set()
            await asyncio.Event().wait()
        sent.put_nowait(message)

    incoming = asyncio.Queue()
    incoming.put_nowait({"type": "websocket.connect"})
    application = Demultiplexer.as_asgi(gives_up=gives_up, speaks=speaks)
    scope = {"type": "websocket", "path": "/"}
    serving = asyncio.ensure_future(application(scope, incoming.get, server))
    message = await asyncio.wait_for(sent.get(), 1)
    assert message["text"] == '{"stream":"speaks","payload":0}'
    incoming.put_nowait({"type": "websocket.disconnect", "code": 1006})
    await asyncio.wait_for(serving, 1)


async def test_one_refuses():
    """A refusal is one application's, whatever the order."""
    for applications in (
        {"refuses": Refuses, "echo": Echo},
        {"echo": Echo, "refuses": Refuses},
    ):
        client = await connect(**applications)
        assert await is_alive(client)
        await client.disconnect()


async def test_all_refuse():
    """The socket is refused when all have refused, with the last code."""
    late = asyncio.Event()

    class Last(AsyncWebsocketConsumer):
        async def connect(self):
            await late.wait()
            await self.close(4404)

    application = Demultiplexer.as_asgi(first=Last, second=Refuses)
    client = WebsocketCommunicator(application, "/")
    await client.send_input({"type": "websocket.connect"})
    assert await client.receive_nothing()
    late.set()
    assert (await client.receive_output())["code"] == 4404
    await client.disconnect()


async def test_all_refuse_without_a_code():
    """A refusal without a code of its own has none."""
    client = WebsocketCommunicator(Demultiplexer.as_asgi(a=refuses), "/")
    assert await client.connect() == (False, 1000)
    await client.disconnect()


async def test_none_accepts_and_one_raises():
    """What an application raised leaves the demultiplexer if none accepts."""

    class RaisesAtConnect(AsyncWebsocketConsumer):
        async def connect(self):
            raise LookupError("at connect")

    application = Demultiplexer.as_asgi(a=RaisesAtConnect, b=Refuses)
    client = WebsocketCommunicator(application, "/")
    await client.send_input({"type": "websocket.connect"})
    with pytest.raises(LookupError, match="at connect"):
        await asyncio.wait_for(client.future, 1)


async def test_returning_refuses():
    """An application that returns before it accepts has refused."""

    async def returns(scope, receive, send):
        pass

    client = WebsocketCommunicator(Demultiplexer.as_asgi(a=returns), "/")
    assert await client.connect() == (False, 1000)
    await client.disconnect()


async def test_refuses_a_socket_that_is_accepted():
    """If connect() accepts, an application that refuses leaves the others."""
    decided = asyncio.Event()

    class Accepts(Demultiplexer):
        async def connect(self):
            await self.accept()

    class Slow(Echo):
        async def connect(self):
            await decided.wait()
            await self.accept()

    client = await connect(Accepts, refuses=Refuses, slow=Slow)
    assert await client.receive_nothing()
    decided.set()
    assert await is_alive(client, "slow")
    await client.disconnect()

    client = await connect(Accepts, refuses=Refuses)
    assert (await client.receive_output())["code"] == 4403
    await client.disconnect()


async def test_accept_when_all():
    """With accept_when = "all" the socket is accepted with the last."""
    late = asyncio.Event()

    class Late(Echo):
        async def connect(self):
            await late.wait()
            await self.accept()

    class Eager(Echo):
        async def connect(self):
            await self.accept()
            await self.send_json("welcome")

    class All(Demultiplexer):
        accept_when = "all"

    client = WebsocketCommunicator(All.as_asgi(late=Late, eager=Eager), "/")
    await client.send_input({"type": "websocket.connect"})
    assert await client.receive_nothing()
    late.set()
    assert (await client.receive_output())["type"] == "websocket.accept"
    assert await receive(client, "eager") == "welcome"
    await client.disconnect()


async def test_accept_when_all_and_one_refuses():
    """With accept_when = "all" one refusal refuses the socket."""

    class All(Demultiplexer):
        accept_when = "all"

    client = WebsocketCommunicator(All.as_asgi(a=Echo, b=Refuses, c=NeverAccepts), "/")
    assert await client.connect() == (False, 4403)
    await client.disconnect()


async def test_no_route_refuses():
    """An application that is a URLRouter without such a path refuses its stream."""
    client = WebsocketCommunicator(Demultiplexer.as_asgi(rooms=URLRouter([])), "/ws/")
    assert await client.connect() == (False, 4404)
    await client.disconnect()


async def test_no_route_below_a_router_refuses(caplog):
    """A URLRouter without such a path refuses its stream also below another one."""
    inner = URLRouter([path("1/", Echo.as_asgi())])
    application = URLRouter([path("ws/", Demultiplexer.as_asgi(rooms=inner))])
    client = WebsocketCommunicator(application, "/ws/")
    assert await client.connect() == (False, 4404)
    await client.disconnect()
    assert "raised" not in caplog.text


# 3. Frames for an application that has not decided


async def test_frames_wait_for_accept():
    """Frames for a stream that is not accepted yet wait for it, in order."""
    late = asyncio.Event()

    class Late(Echo):
        async def connect(self):
            await late.wait()
            await self.accept()

    client = await connect(late=Late, echo=Echo)
    for number in range(3):
        await send(client, "late", number)
    assert await is_alive(client)
    late.set()
    assert [await receive(client, "late") for _ in range(3)] == [0, 1, 2]
    await client.disconnect()


async def test_no_frame_before_accept():
    """An application that reads before it accepts gets no frame."""
    got = []
    accept = asyncio.Event()

    async def reads(scope, receive, send):
        async def read():
            while True:
                got.append((await receive())["type"])

        reader = asyncio.ensure_future(read())
        await accept.wait()
        got.append("accepts")
        await send({"type": "websocket.accept"})
        await reader

    client = await connect(reads=reads, echo=Echo)
    await send(client, "reads", 1)
    assert await is_alive(client)
    accept.set()
    assert await is_alive(client)
    assert got == ["websocket.connect", "accepts", "websocket.receive"]
    await client.disconnect()


# 4. The end of a stream


@pytest.mark.parametrize(
    "application", [Closes, Raises, Returns], ids=["closes", "raises", "returns"]
)
async def test_ends_its_own_stream(application):
    """An application that closes, raises or returns ends its own stream only."""
    client = await connect(ends=application, echo=Echo)
    assert await is_alive(client)
    await send(client, "ends", 4001)
    assert await is_alive(client)
    await client.disconnect()


@pytest.mark.parametrize(
    ("application", "payload", "code"),
    [
        (Closes, 4001, 4001),
        (Closes, 1000, 1000),
        (Closes, 1001, 1000),
        (Closes, 1008, 4500),
        (Raises, 0, 4500),
        (Returns, 0, 1000),
    ],
)
async def test_last_stream_ends(application, payload, code):
    """The socket is closed with the last stream, with a code Daphne allows."""
    client = await connect(ends=application)
    await send(client, "ends", payload)
    message = await client.receive_output()
    assert (message["type"], message.get("code", 1000)) == ("websocket.close", code)
    await client.disconnect()


@pytest.mark.parametrize("application", [Closes, Raises, Returns])
async def test_one_that_has_not_decided_is_left(application):
    """An application that ends before another has decided leaves it its socket."""
    late = asyncio.Event()

    class Late(Echo):
        async def connect(self):
            await late.wait()
            await self.accept()

    client = await connect(ends=application, late=Late)
    await send(client, "ends", 4001)
    assert await client.receive_nothing()
    late.set()
    assert await is_alive(client, "late")
    await client.disconnect()


async def test_last_stream_gives_the_reason():
    """The socket is closed with the reason of the last stream, too."""
    client = await connect(ends=Closes)
    await send(client, "ends", 4001)
    assert (await client.receive_output())["reason"] == "as you wish"
    await client.disconnect()


@pytest.mark.parametrize("reason", ["x" * 124, "\N{SNOWMAN}" * 42, "\ud800" * 200])
async def test_long_reason(reason):
    """A reason that fits in no close frame is cut, or servers wouldn't close."""

    class Talks(AsyncWebsocketConsumer):
        async def receive(self, text_data=None, bytes_data=None):
            await self.close(4001, reason)

    client = await connect(ends=Talks)
    await send(client, "ends", 0)
    got = (await client.receive_output())["reason"]
    assert 120 < len(got.encode()) <= 123
    await client.disconnect()


@pytest.mark.parametrize(
    ("code", "reason"), [("4001", ""), (4001.5, ""), (4001, b""), (4001, 5)]
)
async def test_close_of_no_type(code, reason, caplog):
    """A close that is none is its application's error, and the socket ends."""

    async def application(scope, receive, send):
        await send({"type": "websocket.accept"})
        await receive()
        await receive()
        await send({"type": "websocket.close", "code": code, "reason": reason})

    client = await connect(ends=application)
    await send(client, "ends", 0)
    assert (await client.receive_output())["code"] == 4500
    await client.disconnect()
    assert "expected a" in caplog.text


async def test_own_close_of_no_type():
    """A hook that closes with no code can still close."""

    class Closing(Demultiplexer):
        async def receive_json(self, content, **kwargs):
            with pytest.raises(TypeError):
                await self.close("4001")
            await self.close(4002)

    client = await connect(Closing, echo=Echo)
    await send(client, "echo", 0)
    assert (await client.receive_output())["code"] == 4002
    await client.disconnect()


async def test_frames_after_the_close():
    """Frames that cross the socket's close are dropped."""
    client = await connect(ends=Closes)
    await send(client, "ends", 4001)
    assert (await client.receive_output())["code"] == 4001
    await send(client, "ends", 4002)
    await client.send_to(text_data="no json")
    assert await client.receive_nothing()
    await client.disconnect()


async def test_logs_what_was_raised(caplog):
    """What an application raises is logged with the name of its stream."""
    client = await connect(ends=Raises, echo=Echo)
    assert await is_alive(client)
    await send(client, "ends", 0)
    assert await is_alive(client)
    await client.disconnect()
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "'ends'" in record.getMessage()
    assert record.exc_info[0] is LookupError


async def test_late_sends_are_dropped():
    """What an application sends after its end is dropped, and raises nothing."""
    sent = asyncio.Event()

    class Late(AsyncWebsocketConsumer):
        async def receive(self, text_data=None, bytes_data=None):
            await self.close()
            await self.send("late")
            await self.close()
            sent.set()

    client = await connect(late=Late, echo=Echo)
    assert await is_alive(client)
    await send(client, "late", 0)
    assert await is_alive(client)
    await asyncio.wait_for(sent.wait(), 1)
    assert await client.receive_nothing()
    await client.disconnect()


# 5. Bad frames

BAD = {
    "no json": ("", "invalid-json"),
    "json": ("{", "invalid-json"),
    "array": ("[1]", "invalid-envelope"),
    "deep": ("[" * 100_000, "invalid-json"),
    "deep payload": ('{"stream":"echo","payload":' + "[" * 100_000, "invalid-json"),
    "no payload": ('{"stream":"echo"}', "invalid-envelope"),
    "both": ('{"stream":"echo","payload":1,"text":"1"}', "invalid-envelope"),
    "long name": (
        json.dumps({"stream": "x" * 2**20, "payload": 1}),
        "invalid-envelope",
    ),
    "list name": ('{"stream":["echo"],"payload":1}', "invalid-envelope"),
    "unknown": ('{"stream":"other","payload":1}', "unknown-stream"),
    "unnamed": ('{"stream":"","payload":1}', "invalid-envelope"),
    "newline": ('{"stream":"a\\nERROR b","payload":1}', "unknown-stream"),
    "no header": (b"", "invalid-envelope"),
    "empty name": (b"\0abc", "invalid-envelope"),
    "cut name": (b"\x05ech", "invalid-envelope"),
    "no utf-8": (b"\x02\xff\xfe", "invalid-envelope"),
    "unknown binary": (b"\x05otherabc", "unknown-stream"),
}


@pytest.mark.parametrize(("frame", "code"), BAD.values(), ids=BAD)
async def test_bad_frame(frame, code, caplog):
    """A bad frame is answered, logged in one line, and harms nothing."""
    client = await connect(echo=Echo)
    key = "text" if isinstance(frame, str) else "bytes"
    await send(client, "echo", "in flight")
    await client.send_input({"type": "websocket.receive", key: frame})
    # The answer overtakes the echo: the application has yet to be woken.
    answer = await client.receive_json_from()
    assert answer.keys() == {"error"}
    assert answer["error"]["code"] == code
    assert await receive(client, "echo") == "in flight"
    assert await is_alive(client)
    await client.disconnect()
    (record,) = caplog.records
    assert code in record.getMessage()
    assert len(record.getMessage()) < 300
    assert record.getMessage().isprintable()


async def test_duplicate_keys():
    """Of duplicate keys the last counts."""
    client = await connect(echo=Echo)
    await client.send_to(
        text_data='{"stream":1,"payload":0,"stream":"echo","payload":1}'
    )
    assert await receive(client, "echo") == 1
    await client.disconnect()


async def test_names_the_stream():
    """The answer to a bad frame names its stream, if it has one."""
    client = await connect(echo=Echo)
    for frame, stream in (
        ('{"stream":"ü","payload":1}', "ü"),
        ('{"stream":"echo"}', "echo"),
        ("[]", None),
    ):
        await client.send_to(text_data=frame)
        assert (await client.receive_json_from())["error"]["stream"] == stream
    await client.disconnect()


async def test_max_invalid_frames():
    """After max_invalid_frames of them the socket is closed with 4400."""

    class Strict(Demultiplexer):
        max_invalid_frames = 3

    client = await connect(Strict, echo=Echo)
    for _ in range(3):
        await client.send_to(text_data="[]")
        assert "invalid-envelope" in await client.receive_from()
    assert (await client.receive_output())["code"] == 4400
    await client.send_to(text_data="[]")
    assert await client.receive_nothing()
    await client.disconnect()


async def test_frames_for_an_ended_stream():
    """A bare client is told once that a stream has ended, and it doesn't count."""

    class Strict(Demultiplexer):
        max_invalid_frames = 1

    client = await connect(Strict, ends=Closes, echo=Echo)
    assert await is_alive(client)
    await send(client, "ends", 4001)
    assert await is_alive(client)
    for _ in range(3):
        await send(client, "ends", 1)
    error = (await client.receive_json_from())["error"]
    assert (error["code"], error["stream"]) == ("unknown-stream", "ends")
    assert await is_alive(client)
    await client.disconnect()


async def test_invalid_frame_raises():
    """An invalid_frame() that raises ends the application, as 0.0.3 did."""
    disconnected = asyncio.Event()

    class Told(Echo):
        async def disconnect(self, code):
            disconnected.set()

    class Old(Demultiplexer):
        async def invalid_frame(self, error):
            raise error

    client = await connect(Old, echo=Told)
    await client.send_to(text_data="no json")
    with pytest.raises(ValueError, match=r"^Invalid multiplexed frame"):
        await asyncio.wait_for(client.future, 1)
    assert disconnected.is_set()


# 6. The end of the socket


async def test_all_disconnect():
    """Applications that end at different times all end."""
    ended = []
    gates = [asyncio.Event() for _ in range(3)]

    def application(number):
        class Slow(Echo):
            async def disconnect(self, code):
                await gates[number].wait()
                ended.append((number, code))
                if number:
                    gates[number - 1].set()

        return Slow

    client = await connect(
        AsyncJsonWebsocketDemultiplexer, **{f"s{n}": application(n) for n in range(3)}
    )
    gates[2].set()
    await client.disconnect(4000)
    assert ended == [(2, 4000), (1, 4000), (0, 4000)]


async def test_hanging_application(caplog):
    """One that hangs is cancelled after its time, logged by name; others end."""
    ended = asyncio.Event()

    class Ends(Echo):
        async def disconnect(self, code):
            ended.set()

    client = await connect(hangs=Hangs, ends=Ends)
    await client.disconnect()
    assert ended.is_set()
    (record,) = caplog.records
    assert "'hangs'" in record.getMessage()
    assert record.levelno == logging.WARNING


class Counts(Echo):
    """
    Counts its disconnects.
    """

    codes: list[int]

    async def receive_json(self, content):
        if content == "close":
            await self.close(4002)
        elif content == "raise":
            raise LookupError

    async def websocket_disconnect(self, message):
        self.codes.append(message["code"])
        await super().websocket_disconnect(message)


@pytest.mark.parametrize(
    ("payload", "code"), [("close", 4002), ("stay", 4000)], ids=["closed", "stayed"]
)
async def test_one_disconnect(payload, code):
    """Every application gets one disconnect, also one that closed itself."""

    class One(Counts):
        codes = []

    client = await connect(one=One, echo=Echo, hangs=Hangs)
    assert await is_alive(client)
    await send(client, "one", payload)
    assert await is_alive(client)
    await client.disconnect(4000)
    assert One.codes == [code]


async def test_cancelled():
    """Every application gets its disconnect when the demultiplexer is cancelled."""

    class One(Counts):
        codes = []

    client = await connect(a=One, b=One, hangs=Hangs)
    client.future.cancel()
    with pytest.raises(asyncio.CancelledError):
        await client.future
    assert One.codes == [1001, 1001]


async def test_cancelled_twice():
    """Canceled again, the demultiplexer cancels its applications at once."""

    class Patient(Demultiplexer):
        application_close_timeout = 60

    client = await connect(Patient, hangs=Hangs, echo=Echo)
    client.future.cancel()
    await asyncio.sleep(0)  # lets the first cancellation reach it
    client.future.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(client.future, 5)


async def test_client_gone_while_sending():
    """A server's OSError from send is a disconnect, for all applications."""

    class One(Counts):
        codes = []

        async def receive_json(self, content):
            await self.send_json(content)

    application = Demultiplexer.as_asgi(a=One, b=One)
    incoming: asyncio.Queue[dict[str, object]] = asyncio.Queue()
    accepted, gone = asyncio.Event(), asyncio.Event()

    # Uvicorn's send, once its client has vanished.
    async def send(message):
        if message["type"] == "websocket.send":
            gone.set()
            raise OSError("the client is gone")
        accepted.set()

    scope = {"type": "websocket", "path": "/"}
    serving = asyncio.ensure_future(application(scope, incoming.get, send))
    incoming.put_nowait({"type": "websocket.connect"})
    await asyncio.wait_for(accepted.wait(), 1)
    frame = '{"stream":"a","payload":1}'
    incoming.put_nowait({"type": "websocket.receive", "text": frame})
    await asyncio.wait_for(gone.wait(), 1)
    incoming.put_nowait({"type": "websocket.disconnect", "code": 1006})
    await asyncio.wait_for(serving, 1)
    assert One.codes == [1006, 1006]


# Isolation


async def test_sends_before_accept(caplog):
    """An application that sends before it accepts ends its own stream."""

    class Early(AsyncWebsocketConsumer):
        async def connect(self):
            await self.send("early")

    client = await connect(early=Early, echo=Echo)
    assert await is_alive(client)
    assert await client.receive_nothing()
    await client.disconnect()
    assert "expected websocket.accept" in caplog.text


async def test_cancels_itself():
    """An application that raises CancelledError ends its own stream."""

    class Cancels(AsyncWebsocketConsumer):
        async def receive(self, text_data=None, bytes_data=None):
            raise asyncio.CancelledError

    client = await connect(cancels=Cancels, echo=Echo)
    assert await is_alive(client)
    await send(client, "cancels", 0)
    assert await is_alive(client)
    await client.disconnect()


async def never_reads(scope, receive, send):
    """
    Accept, and take no frame.
    """
    await receive()
    await send({"type": "websocket.accept"})
    await asyncio.Event().wait()


async def test_never_reads():
    """An application that never reads touches no other."""
    client = await connect(stuck=never_reads, echo=Echo)
    for number in range(100):
        await send(client, "stuck", number)
    assert await is_alive(client)
    await client.disconnect()


async def test_full_inbox_waits():
    """With overflow = "wait" the socket isn't read while an inbox is full."""
    read = asyncio.Event()
    got = []

    async def slow(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await read.wait()
        while (message := await receive())["type"] == "websocket.receive":
            got.append(message["text"])

    class Small(Demultiplexer):
        inbox_limit = 1000

    client = await connect(Small, slow=slow, echo=Echo)
    for _ in range(10):
        await send(client, "slow", "x" * 100)
    await send(client, "echo", 1)
    assert await client.receive_nothing()
    read.set()
    assert await receive(client, "echo") == 1
    assert len(got) == 10
    await client.disconnect()


async def test_full_inbox_closes():
    """With overflow = "close" the stream of a full inbox ends, and no other."""

    class Small(Demultiplexer):
        inbox_limit = 1000
        overflow = "close"

    client = await connect(Small, stuck=never_reads, echo=Echo)
    assert await is_alive(client)
    for _ in range(10):
        await send(client, "stuck", "x" * 100)
    assert (await client.receive_json_from())["error"]["stream"] == "stuck"
    assert await is_alive(client)
    await client.disconnect()


async def test_full_inbox_of_a_hanging_application():
    """An application that hangs with a full inbox keeps no other from its end."""

    class One(Counts):
        codes = []

    class Small(Demultiplexer):
        inbox_limit = 1000
        inbox_timeout = 0.05

    client = await connect(Small, stuck=never_reads, one=One)
    for _ in range(10):
        await send(client, "stuck", "x" * 100)
    await client.disconnect(4000)
    assert One.codes == [4000]


async def test_full_inbox_and_the_client_is_gone():
    """An OSError from send reaches a reader that waits for a full inbox."""
    vanished, stuck = asyncio.Event(), asyncio.Event()

    class Speaks(Counts):
        codes = []

        async def connect(self):
            await super().connect()
            await vanished.wait()
            await self.send_json("anybody?")

    class Small(Demultiplexer):
        inbox_limit = 1000

    application = Small.as_asgi(stuck=never_reads, speaks=Speaks)
    frames = [{"type": "websocket.connect"}]
    frames += [
        {"type": "websocket.receive", "text": '{"stream":"stuck","payload":1}'}
    ] * 10

    # Uvicorn, which knows that the client is gone, but delivers in order. It never
    # waits, so that whoever waits for stuck runs once the reader does.
    async def receive():
        if len(frames) < 10:
            stuck.set()
        end = {"type": "websocket.disconnect", "code": 1006}
        return frames.pop(0) if frames else end

    async def send(message):
        if message["type"] == "websocket.send":
            raise OSError("the client is gone")

    scope = {"type": "websocket", "path": "/"}
    serving = asyncio.ensure_future(application(scope, receive, send))
    await asyncio.wait_for(stuck.wait(), 1)
    vanished.set()
    await asyncio.wait_for(serving, 1)
    assert Speaks.codes == [1006]


async def test_nothing_is_left():
    """When the socket has ended nothing refers to its parts."""
    parts = []

    class Kept(AsyncJsonWebsocketConsumer):
        async def connect(self):
            parts.append(weakref.ref(self))
            await self.accept()

    class Remembers(Demultiplexer):
        async def websocket_connect(self, message):
            parts.append(weakref.ref(self))
            await super().websocket_connect(message)

    client = await connect(Remembers, a=Kept, b=Kept, ends=Closes)
    await send(client, "ends", 1000)
    await client.disconnect()
    del client
    gc.collect()
    assert [part() for part in parts] == [None] * 3


async def test_groups_are_left():
    """Applications, and the demultiplexer, leave their channel-layer groups."""

    class Grouped(Echo):
        groups = ["news"]

    class GroupedDemultiplexer(Demultiplexer):
        groups = ["all"]

    client = await connect(GroupedDemultiplexer, a=Grouped, b=Grouped)
    assert await is_alive(client, "a")
    assert await is_alive(client, "b")
    layer = get_channel_layer()
    assert len(layer.groups["news"]) == 2
    assert len(layer.groups["all"]) == 1
    await client.disconnect()
    assert not layer.groups.get("news")
    assert not layer.groups.get("all")


@pytest.mark.parametrize("way", ["cancelled", "failed"])
async def test_groups_are_left_without_disconnect(way):
    """The demultiplexer leaves its groups however its socket ends."""

    class Grouped(Demultiplexer):
        groups = ["all"]

        async def invalid_frame(self, error):
            raise error

    client = await connect(Grouped, echo=Echo)
    assert len(get_channel_layer().groups["all"]) == 1
    if way == "cancelled":
        client.future.cancel()
    else:
        await client.send_to(text_data="no JSON")
    with pytest.raises((asyncio.CancelledError, ValueError)):
        await asyncio.wait_for(asyncio.shield(client.future), 1)
    assert not get_channel_layer().groups.get("all")


async def test_channel_layer_handler():
    """A handler of a subclass gets what is sent to its group."""

    class News(Demultiplexer):
        groups = ["news"]

        async def news_flash(self, message):
            await self.send_json({"stream": "news", "payload": message["text"]})

    client = await connect(News, echo=Echo)
    await get_channel_layer().group_send("news", {"type": "news.flash", "text": "hi"})
    assert await receive(client, "news") == "hi"
    await client.disconnect()


async def test_no_channel_without_need():
    """A demultiplexer that uses no layer takes no channel."""
    names = []

    class Remembers(Demultiplexer):
        async def websocket_disconnect(self, message):
            names.append(hasattr(self, "channel_name"))
            await super().websocket_disconnect(message)

    client = await connect(Remembers, echo=Echo)
    await client.disconnect()
    assert names == [False]


# Text and binary


async def test_binary():
    """A binary message has the stream's name before its bytes, both ways."""
    client = await connect(text=Text, echo=Echo)
    for data in (b"\x00\xff", b""):
        await client.send_input(
            {"type": "websocket.receive", "bytes": b"\x04text" + data}
        )
        assert await client.receive_from() == b"\x04text" + data
    await client.disconnect()


async def test_binary_with_hooks():
    """A binary message passes hooks that see JSON."""

    class Hooked(Demultiplexer):
        async def receive_json(self, content, **kwargs):
            await super().receive_json(content, **kwargs)

        async def send_json(self, content, close=False):
            await super().send_json(content, close)

    client = await connect(Hooked, text=Text)
    await client.send_to(bytes_data=b"\x04text\xff")
    assert await client.receive_from() == b"\x04text\xff"
    await client.send_json_to({"stream": "text", "text": "plain"})
    assert await client.receive_json_from() == {"stream": "text", "text": "plain"}
    await client.disconnect()


@pytest.mark.parametrize("text", ["plain", "", "NaN", '"\ud800"', "{'a': 1}", "[" * 9])
async def test_text_that_is_no_json(text):
    """Text that is not JSON travels as text, both ways."""
    client = await connect(text=Text)
    await client.send_json_to({"stream": "text", "text": text})
    assert await client.receive_json_from() == {"stream": "text", "text": text}
    await client.disconnect()


@pytest.mark.parametrize("payload", ["NaN", "[-Infinity]", r'"\ud800"', r'"\ud83d"'])
async def test_slow_path(payload):
    """What only json accepts still reaches the application."""
    got = []

    class Keeps(Echo):
        async def receive_json(self, content):
            got.append(json.dumps(content))
            await self.send_json("got it")

    client = await connect(keeps=Keeps)
    await client.send_to(text_data=f'{{"stream":"keeps","payload":{payload}}}')
    assert await receive(client, "keeps") == "got it"
    assert got == [payload]
    await client.disconnect()


async def test_keys():
    """The keys of a frame can be others."""

    class Other(Demultiplexer):
        stream_key = "consumer"
        payload_key = "message"

    client = await connect(Other, echo=Echo)
    await client.send_json_to({"consumer": "echo", "message": 1})
    assert await client.receive_json_from() == {"consumer": "echo", "message": 1}
    await client.disconnect()


async def test_sync_consumers():
    """Synchronous consumers and asynchronous ones share a socket."""
    client = await connect(sync=SyncEcho, echo=Echo)
    await send(client, "sync", {"a": 1})
    assert await receive(client, "sync") == {"a": 1}
    assert await is_alive(client)
    await client.disconnect()


# Mistakes


async def test_value_that_is_no_application():
    """A value that can't be called is named in the error."""
    client = WebsocketCommunicator(Demultiplexer.as_asgi(a=5), "/")
    await client.send_input({"type": "websocket.connect"})
    with pytest.raises(TypeError, match=r"expected an ASGI application.*'a'.*5"):
        await asyncio.wait_for(client.future, 1)


@pytest.mark.parametrize("application", [Returns, Raises, Closes])
async def test_hook_raises(application):
    """What a hook of a subclass raises ends the socket, and is raised."""

    class Broken(Demultiplexer):
        async def websocket_close(self, message, stream_name):
            raise LookupError("in a hook")

    client = await connect(Broken, ends=application, echo=Echo)
    assert await is_alive(client)
    await send(client, "ends", 4001)
    with pytest.raises(LookupError, match="in a hook"):
        await asyncio.wait_for(client.future, 1)


async def test_message_of_no_known_type():
    """A message that the server shouldn't send is refused by its type."""
    client = WebsocketCommunicator(Demultiplexer.as_asgi(a=Echo), "/")
    await client.send_input({"type": "http.request"})
    with pytest.raises(ValueError, match=r"http\.request"):
        await asyncio.wait_for(client.future, 1)


async def test_denial_response_is_not_offered():
    """A stream can't be refused with a response, so it isn't told that it can."""
    scopes = []

    async def application(scope, receive, send):
        scopes.append(scope)
        await send({"type": "websocket.accept"})

    client = WebsocketCommunicator(Demultiplexer.as_asgi(a=application), "/")
    client.scope["extensions"] = {"websocket.http.response": {}, "other": {}}
    await client.connect()
    await client.disconnect()
    assert scopes[0]["extensions"] == {"other": {}}
    assert "websocket.http.response" in client.scope["extensions"]
