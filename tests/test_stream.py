"""
One stream: its states, what its application receives, and its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging

import pytest
from channels.consumer import AsyncConsumer
from channels.generic.websocket import AsyncWebsocketConsumer

from channelsmultiplexer import envelope
from channelsmultiplexer.exceptions import InboxClosed, InboxFull
from channelsmultiplexer.stream import Stream, StreamState
from guard import blocked, soon

CONNECT = {"type": "websocket.connect"}

DISCONNECT = {"type": "websocket.disconnect", "code": 1001}

# Shorter than anybody would wait, for tests that let it run out.
SHORT = 0.01


def make(*, name="chat", scope=None, inbox_limit=10_000, close_timeout=60):
    """
    Return a stream whose application doesn't run yet.
    """
    wrapper = envelope.Bare().wrapper(name)
    return Stream(
        name,
        wrapper,
        path=name,
        scope=scope,
        inbox_limit=inbox_limit,
        close_timeout=close_timeout,
    )


@pytest.fixture
async def stream():
    """
    A stream whose application doesn't run yet.
    """
    return make()


def frame(text):
    return {"type": "websocket.receive", "text": text}


async def ignore(message):
    """
    Take what an application sends.
    """


def run(stream, application, send=ignore):
    """
    Run the application of a stream, as the socket would.
    """
    stream.task = asyncio.ensure_future(stream.run(application, send))
    return stream.task


class Recorder:
    """
    A plain ASGI application that keeps what it receives, to its disconnect.
    """

    def __init__(self):
        self.received = []

    async def __call__(self, scope, receive, send):
        while self.received[-1:] != [DISCONNECT]:
            self.received.append(await receive())


async def receive_all(stream):
    """
    Return all that an application receives of a stream that is disconnected.
    """
    application = Recorder()
    assert await soon(run(stream, application)) is None
    return application.received


# The states

MOVES = {
    "accept": lambda stream: stream.accept(),
    "disconnect": lambda stream: stream.disconnect(1001, None),
    "end": lambda stream: stream.end(),
}

# The ways to each state.
WAYS = {
    StreamState.CONNECTING: [[]],
    StreamState.OPEN: [["accept"]],
    StreamState.CLOSING: [["disconnect"], ["accept", "disconnect"]],
    StreamState.CLOSED: [["end"], ["accept", "end"], ["accept", "disconnect", "end"]],
}

LEGAL = {
    (StreamState.CONNECTING, "accept"): StreamState.OPEN,
    (StreamState.CONNECTING, "disconnect"): StreamState.CLOSING,
    (StreamState.CONNECTING, "end"): StreamState.CLOSED,
    (StreamState.OPEN, "disconnect"): StreamState.CLOSING,
    (StreamState.OPEN, "end"): StreamState.CLOSED,
    (StreamState.CLOSING, "end"): StreamState.CLOSED,
}


def moves(*, legal):
    """
    Return each state by each way, and each move that is legal there, or isn't.
    """
    return [
        pytest.param(state, way, move, id=f"{'-'.join(way)}-{state.name}-{move}")
        for state, ways in WAYS.items()
        for way in ways
        for move in MOVES
        if ((state, move) in LEGAL) is legal
    ]


def advance(stream, way):
    """
    Bring a new stream to a state.
    """
    for move in way:
        MOVES[move](stream)


def snapshot(stream):
    """
    Return all that a stream and its inbox consist of: private names too, since an
    illegal move must change nothing.
    """
    parts = [getattr(stream, name, None) for name in stream.__slots__]
    inbox = [getattr(stream.inbox, name) for name in stream.inbox.__slots__]
    return parts, [list(part) if hasattr(part, "append") else part for part in inbox]


async def test_starts_connecting(stream):
    """A new stream's application has not decided."""
    assert stream.state is StreamState.CONNECTING
    assert stream.farewell is None


@pytest.mark.parametrize(("state", "way", "move"), moves(legal=True))
async def test_legal_move(stream, state, way, move):
    """A legal move leads where the table says."""
    advance(stream, way)
    assert stream.state is state
    MOVES[move](stream)
    assert stream.state is LEGAL[state, move]


@pytest.mark.parametrize(("state", "way", "move"), moves(legal=False))
async def test_illegal_move(stream, state, way, move):
    """An illegal move raises and changes nothing."""
    stream.put_nowait(frame("a"))
    advance(stream, way)
    before = snapshot(stream)
    with pytest.raises(RuntimeError, match=f"'chat' can't go from {state.name} to"):
        MOVES[move](stream)
    assert snapshot(stream) == before


@pytest.mark.parametrize(
    ("state", "is_live"),
    [
        (StreamState.CONNECTING, True),
        (StreamState.OPEN, True),
        (StreamState.CLOSING, False),
        (StreamState.CLOSED, False),
    ],
)
async def test_is_live(stream, state, is_live):
    """The client may send until one side has closed."""
    advance(stream, WAYS[state][0])
    assert stream.is_live is is_live


# What the application receives


async def test_connect_first(stream):
    """The application receives websocket.connect, and no more before it accepts."""
    application = Recorder()
    await blocked(run(stream, application))
    stream.put_nowait(frame("a"))
    await blocked(stream.task)
    assert application.received == [CONNECT]
    stream.kill()
    await soon(stream.task)


async def test_held_until_accept(stream):
    """Frames wait until the application accepts, and come in order."""
    application = Recorder()
    stream.put_nowait(frame("a"))
    await blocked(run(stream, application))
    stream.put_nowait(frame("b"))
    stream.accept()
    stream.put_nowait(frame("c"))
    stream.disconnect(1001, None)
    await soon(stream.task)
    texts = [frame(text) for text in "abc"]
    assert application.received == [CONNECT, *texts, DISCONNECT]


async def test_frames_come_as_they_are(stream):
    """A message reaches the application as it was put."""
    stream.accept()
    message = {"type": "websocket.receive", "bytes": b"\x00", "more": object()}
    stream.put_nowait(message)
    stream.disconnect(1001, None)
    assert (await receive_all(stream))[1] is message


async def test_disconnect_before_accept(stream):
    """A stream that ends before it is accepted drops its frames."""
    stream.put_nowait(frame("a"))
    stream.disconnect(1001, None)
    assert await receive_all(stream) == [CONNECT, DISCONNECT]


async def test_disconnect_after_frames(stream):
    """The application receives what was there before its disconnect."""
    stream.accept()
    stream.put_nowait(frame("a"))
    stream.disconnect(1001, None)
    assert await receive_all(stream) == [CONNECT, frame("a"), DISCONNECT]


async def test_disconnect_drops(stream):
    """The application that closed receives its disconnect and no frame before it."""
    stream.accept()
    stream.put_nowait(frame("a"))
    stream.disconnect(1001, None, drop=True)
    assert await receive_all(stream) == [CONNECT, DISCONNECT]


async def test_disconnect_when_full():
    """The disconnect needs no room."""
    stream = make(inbox_limit=1)
    stream.accept()
    stream.put_nowait(frame("a"))
    stream.disconnect(1001, None)
    assert await receive_all(stream) == [CONNECT, frame("a"), DISCONNECT]


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        (None, {"type": "websocket.disconnect", "code": 4001}),
        ("", {"type": "websocket.disconnect", "code": 4001, "reason": ""}),
        ("bye", {"type": "websocket.disconnect", "code": 4001, "reason": "bye"}),
    ],
)
async def test_disconnect_says_why(stream, reason, message):
    """The disconnect has its code, and its reason if there is one."""
    stream.accept()
    stream.disconnect(4001, reason)
    assert await soon(stream.inbox.get()) == message


async def test_disconnect_once(stream):
    """The application receives one disconnect and nothing after it."""
    stream.accept()
    stream.disconnect(1001, None)
    with pytest.raises(RuntimeError):
        stream.disconnect(1000, None)
    with pytest.raises(InboxClosed):
        stream.put_nowait(frame("a"))
    await soon(stream.put(frame("b")))
    assert await receive_all(stream) == [CONNECT, DISCONNECT]


async def test_disconnect_while_it_reads(stream):
    """An application that waits for a frame receives its disconnect."""
    stream.accept()
    application = Recorder()
    await blocked(run(stream, application))
    stream.disconnect(1001, None)
    await soon(stream.task)
    assert application.received == [CONNECT, DISCONNECT]


# How much may wait


def fill(stream, message):
    """
    Return how often a message fits in the inbox of a stream.
    """
    for number in itertools.count():
        try:
            stream.put_nowait(message)
        except InboxFull:
            return number


@pytest.mark.parametrize(
    "message", [frame(""), {"type": "websocket.receive", "bytes": b""}, {"type": "x"}]
)
async def test_empty_messages_count(stream, message):
    """A flood of empty messages fills an inbox too."""
    assert 10 < fill(stream, message) < 100


@pytest.mark.parametrize("data", [{"text": "a" * 9_000}, {"bytes": b"a" * 9_000}])
async def test_data_counts(stream, data):
    """What a message carries counts against the limit."""
    message = {"type": "websocket.receive", **data}
    stream.put_nowait(message)
    with pytest.raises(InboxFull):
        stream.put_nowait(message)


async def test_bytes_count(stream):
    """The limit is on the bytes of a text in UTF-8, not on its length."""
    stream.put_nowait(frame("\U0001f600" * 2_400))
    with pytest.raises(InboxFull):
        stream.put_nowait(frame(""))


async def test_put_waits():
    """put() leaves its message when the application has made room."""
    stream = make(inbox_limit=1)
    stream.accept()
    stream.put_nowait(frame("a"))
    putting = await blocked(stream.put(frame("b")))
    assert await soon(stream.inbox.get()) == frame("a")
    await soon(putting)
    assert await soon(stream.inbox.get()) == frame("b")


async def test_put_cancelled_before(stream):
    """put() leaves nothing if it is cancelled before it starts."""
    stream.accept()
    putting = asyncio.ensure_future(stream.put(frame("a")))
    putting.cancel()
    await asyncio.wait([putting])
    stream.disconnect(1001, None)
    assert await receive_all(stream) == [CONNECT, DISCONNECT]


async def test_put_cancelled_during():
    """put() leaves nothing if it is cancelled while it waits."""
    stream = make(inbox_limit=1)
    stream.accept()
    stream.put_nowait(frame("a"))
    putting = await blocked(stream.put(frame("b")))
    putting.cancel()
    await asyncio.wait([putting])
    assert putting.cancelled()
    stream.disconnect(1001, None)
    assert await receive_all(stream) == [CONNECT, frame("a"), DISCONNECT]


@pytest.mark.parametrize("move", ["disconnect", "end"])
@pytest.mark.parametrize("way", [[], ["accept"]], ids=["connecting", "open"])
async def test_ends_while_put_waits(way, move):
    """put() drops its message, and returns, if the stream ends first."""
    stream = make(inbox_limit=1)
    advance(stream, way)
    stream.put_nowait(frame("a"))
    waiting = [await blocked(stream.put(frame(text))) for text in "bc"]
    MOVES[move](stream)
    for putting in waiting:
        assert await soon(putting) is None


# How the application ends


async def test_run_passes_on():
    """The application is called with its scope and the send that run was given."""
    seen = []

    async def application(scope, receive, send):
        seen.append((scope, send))

    scope = {}
    await soon(run(make(scope=scope), application))
    assert seen[0][0] is scope
    assert seen[0][1] is ignore


async def test_returns(stream):
    """run() returns None if the application returns."""

    async def returns(scope, receive, send):
        return "what nobody asked for"

    assert await soon(run(stream, returns)) is None


async def test_raises(stream):
    """run() returns what the application raises."""
    error = LookupError("of this application")

    async def raises(scope, receive, send):
        raise error

    assert await soon(run(stream, raises)) is error


async def test_raises_at_once(stream):
    """run() returns what a callable raises that never becomes a coroutine."""

    def raises(scope, receive):
        raise AssertionError("never called: it takes no send")

    assert isinstance(await soon(run(stream, raises)), TypeError)


async def test_raises_cancelled(stream):
    """run() returns a CancelledError that is the application's own."""
    error = asyncio.CancelledError("of this application")

    async def raises(scope, receive, send):
        raise error

    assert await soon(run(stream, raises)) is error


async def test_cancelled_by_itself(stream):
    """run() returns the CancelledError of an application that cancels its own task."""

    async def cancels(scope, receive, send):
        asyncio.current_task().cancel()
        await receive()
        await receive()

    error = await soon(run(stream, cancels))
    assert isinstance(error, asyncio.CancelledError)


async def test_kill(stream):
    """An application that was killed has raised nothing."""
    await blocked(run(stream, Recorder()))
    stream.kill()
    assert await soon(stream.task) is None


async def test_killed_and_raises(stream):
    """run() returns what an application raises when it is killed."""

    async def raises(scope, receive, send):
        try:
            await asyncio.Event().wait()
        finally:
            raise LookupError("in the clean-up")

    await blocked(run(stream, raises))
    stream.kill()
    assert isinstance(await soon(stream.task), LookupError)


async def test_expires(caplog):
    """An application that doesn't end in time is cancelled, and that is logged."""
    stream = make(name="a\nb", close_timeout=SHORT)

    async def hangs(scope, receive, send):
        await asyncio.Event().wait()

    await blocked(run(stream, hangs))
    stream.disconnect(1001, None)
    assert await soon(stream.task) is None
    text = (
        f"The application of stream 'a\\nb' has not ended {SHORT} seconds after its "
        "websocket.disconnect and is cancelled"
    )
    assert caplog.record_tuples == [
        (
            "channelsmultiplexer.stream",
            logging.WARNING,
            text,
        )
    ]


async def test_expires_again(caplog):
    """An application that swallows its cancellation is cancelled again."""
    stream = make(close_timeout=0)

    async def swallows(scope, receive, send):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    await blocked(run(stream, swallows))
    stream.disconnect(1001, None)
    assert await soon(stream.task) is None
    assert len(caplog.records) == 2


async def test_time_starts_with_the_disconnect():
    """An open stream's application has all the time it wants."""
    stream = make(close_timeout=0)
    stream.accept()
    await blocked(run(stream, Recorder()))
    stream.put_nowait(frame("a"))
    assert await blocked(stream.task)
    stream.disconnect(1001, None)
    assert await soon(stream.task) is None


async def test_ends_in_time(caplog):
    """An application that ends in time is not cancelled afterwards."""
    stream = make()
    await blocked(run(stream, Recorder()))
    stream.disconnect(1001, None)
    await soon(stream.task)
    # Private: that a timer doesn't run out can't be waited for.
    assert stream._timer.cancelled()
    assert not caplog.records


# What an application may do with receive()


@pytest.mark.parametrize(
    "wait",
    [
        lambda receive: receive(),
        lambda receive: asyncio.create_task(receive()),
        lambda receive: asyncio.wait_for(receive(), 5),
        lambda receive: asyncio.wait_for(asyncio.shield(receive()), 5),
    ],
    ids=["await", "create_task", "wait_for", "shield"],
)
async def test_plain_application(stream, wait):
    """A plain application may wait for a message in any way."""
    received = []

    async def application(scope, receive, send):
        while received[-1:] != [DISCONNECT]:
            received.append(await wait(receive))

    await blocked(run(stream, application))
    stream.accept()
    stream.put_nowait(frame("a"))
    await blocked(stream.task)
    stream.put_nowait(frame("b"))
    stream.disconnect(1001, None)
    await soon(stream.task)
    assert received == [CONNECT, frame("a"), frame("b"), DISCONNECT]


async def test_plain_application_gives_up(stream):
    """A plain application that gives up waiting loses no message."""
    gave_up = asyncio.Event()

    async def application(scope, receive, send):
        assert await receive() == CONNECT
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(receive(), SHORT)
        gave_up.set()
        assert await asyncio.wait_for(receive(), 5) == frame("a")

    run(stream, application)
    stream.accept()
    await soon(gave_up.wait())
    stream.put_nowait(frame("a"))
    assert await soon(stream.task) is None


async def test_plain_application_cancels(stream):
    """A plain application that cancels when a message is there loses none."""

    async def application(scope, receive, send):
        assert await receive() == CONNECT
        receiving = await blocked(receive())
        stream.put_nowait(frame("a"))
        receiving.cancel()
        await asyncio.wait([receiving])
        assert receiving.cancelled()
        assert await receive() == frame("a")

    stream.accept()
    assert await soon(run(stream, application)) is None


async def test_consumer_gets_futures(stream):
    """A Channels consumer waits for a message without a task."""
    messages = []

    class Consumer(AsyncConsumer):
        async def __call__(self, scope, receive, send):
            while messages[-1:] != [DISCONNECT]:
                future = receive()
                assert asyncio.ensure_future(future) is future
                assert not isinstance(future, asyncio.Task)
                messages.append(await future)

    await blocked(run(stream, Consumer.as_asgi()))
    stream.accept()
    stream.put_nowait(frame("a"))
    stream.disconnect(1001, None)
    assert await soon(stream.task) is None
    assert messages == [CONNECT, frame("a"), DISCONNECT]


async def test_consumer():
    """A Channels consumer runs to its end, as on a WebSocket of its own."""
    sent = asyncio.Queue()

    class Echo(AsyncWebsocketConsumer):
        async def receive(self, text_data=None, bytes_data=None):
            await self.send(text_data)

    stream = make(scope={"type": "websocket"})
    run(stream, Echo.as_asgi(), sent.put)
    assert (await soon(sent.get()))["type"] == "websocket.accept"
    stream.accept()
    for text in ("a", "b"):
        stream.put_nowait(frame(text))
    assert [(await soon(sent.get()))["text"] for _ in range(2)] == ["a", "b"]
    stream.disconnect(1001, None)
    assert await soon(stream.task) is None
    assert sent.empty()


async def test_consumer_raises():
    """run() returns what a Channels consumer raises."""

    class Raises(AsyncWebsocketConsumer):
        async def connect(self):
            raise LookupError("of this consumer")

    stream = make(scope={"type": "websocket"})
    error = await soon(run(stream, Raises.as_asgi()))
    assert isinstance(error, LookupError)
