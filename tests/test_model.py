"""
The v1 dialect under any sequence of frames, against applications that do anything.

A machine plays the client, the applications and the clock. It takes turns at random,
so that most of what happens is on its way when the next thing does. Only then does
the server come in: it must keep to the rules, whatever the sequence.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import json
import time

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from channelsmultiplexer.testing import MultiplexCommunicator
from v1_client import demultiplexer

CLOSE_TIMEOUT = 5
MAX_STREAMS = 4

# More than any chain of wake-ups in the server takes.
TURNS = 30

# Bad wherever they come; each with the code of its error.
BAD_FRAMES = [
    ("garbage", "invalid-json"),
    ('{"op":"credit","stream":"1"}', "unknown-op"),
    ('{"op":"closed","stream":"1"}', "unknown-op"),
    ('{"op":"open","stream":"01","path":"a"}', "invalid-envelope"),
    ('{"op":"close","stream":"999999999"}', "unknown-stream"),
    ('{"stream":"999999999","payload":1}', "unknown-stream"),
    ('{"stream":"x","text":"1"}', "unknown-stream"),
    ('{"stream":"1"}', "invalid-envelope"),
    (b"", "invalid-envelope"),
    (b"\x01x1", "unknown-stream"),
    # An id that has been used.
    (None, "stream-in-use"),
]


class StillLoop(asyncio.SelectorEventLoop):
    """
    An event loop whose clock the test winds.
    """

    now = 0.0

    def time(self):
        """Return the time that the test has set."""
        return self.now


class Actor:
    """
    An application that the machine plays. It receives only when it is told to, and
    then leaves with its disconnect, unless it hangs.
    """

    def __init__(self, send, hangs):
        self.send = send
        self.hangs = hangs
        self.received = []
        self.reads = asyncio.Event()
        self.end = asyncio.get_running_loop().create_future()

    async def run(self, receive):
        """Live until told to end, or until cancelled."""
        reading = asyncio.create_task(self._read(receive))
        try:
            await self.end
        finally:
            reading.cancel()
            await asyncio.wait({reading})

    async def _read(self, receive):
        self.received.append(await receive())
        await self.reads.wait()
        while self.received[-1]["type"] != "websocket.disconnect":
            self.received.append(await receive())
        if not self.hangs:
            self.finish()

    def finish(self, error=None):
        """Return, or raise, unless that has been done."""
        if not self.end.done() and error is None:
            self.end.set_result(None)
        elif not self.end.done():
            self.end.set_exception(error)


class Line:
    """
    What the machine knows of one stream.
    """

    def __init__(self, name, accepts, reads):
        self.name = name
        # What its application does as soon as it has started.
        self.accepts = accepts
        self.reads = reads
        self.actor = None
        # What its client has received, oldest first.
        self.frames = []
        # What either side has sent on it.
        self.by_client = []
        self.by_application = []
        # What of that has to arrive: it was sent when nothing else was on its way.
        self.owed = []
        # If either side has done anything to end it.
        self.is_ending = False

    @property
    def ops(self):
        """The control frames that its client has received."""
        return [frame["op"] for frame in self.frames if "op" in frame]

    @property
    def payloads(self):
        """The data that its client has received."""
        return [frame["payload"] for frame in self.frames if "payload" in frame]

    @property
    def is_open(self):
        """If it is open and bound to stay so."""
        return self.ops == ["opened"] and not self.is_ending


rarely_not = st.sampled_from([True, True, True, False])

# Which stream, counted from the last.
numbers = st.integers(0, 4)

used = precondition(lambda self: self.lines)
staged = precondition(lambda self: any(line.actor for line in self.lines.values()))


class Machine(RuleBasedStateMachine):
    """
    A client, its applications and the time.
    """

    def __init__(self):
        super().__init__()
        self.loop = StillLoop()
        # PYTHONDEVMODE would make it twenty times slower.
        self.loop.set_debug(False)
        self.lines = {}
        self.values = itertools.count()
        # The codes of the errors to come, and of those that came.
        self.expected_errors = []
        self.errors = []
        self.pings = 0
        self.pongs = 0
        # What the applications are doing.
        self.tasks = []
        # If all that was sent has been dealt with.
        self.is_settled = True

    @initialize(hangs=st.booleans(), is_lost=st.booleans())
    def connect(self, hangs, is_lost):
        """
        Open the socket. All applications hang, or none does; in the end it is lost,
        or every stream is ended before.
        """
        self.is_lost = is_lost

        async def application(scope, receive, send):
            line = self.lines[scope["path"].strip("/")]
            line.actor = Actor(send, hangs)
            if line.reads:
                line.actor.reads.set()
            if line.accepts:
                await send({"type": "websocket.accept"})
            await line.actor.run(receive)

        demux = demultiplexer(
            {"a": application},
            application_close_timeout=CLOSE_TIMEOUT,
            max_streams=MAX_STREAMS,
            max_invalid_frames=1000,
            inbox_limit=1500,
            overflow="close",
        )
        self.client = MultiplexCommunicator(demux)
        self.run(self.client.__aenter__())
        assert self.client.unread.popleft()["op"] == "hello"

    def run(self, coroutine):
        """Let the event loop run until a coroutine has returned."""
        return self.loop.run_until_complete(coroutine)

    def send(self, frame):
        """Send a frame; the server may see it later."""
        self.is_settled = False
        self.run(self.client.send_frame(frame))

    def act(self, coroutine):
        """Let an application do something; it may happen later."""
        self.is_settled = False
        self.tasks.append(self.loop.create_task(coroutine))

    def line(self, number, *, is_staged=False):
        """Return one of the last streams, rather one that has not ended."""
        lines = [line for line in self.lines.values() if line.actor or not is_staged]
        lasting = [line for line in lines if "closed" not in line.ops]
        choice = [*lasting[-2:], *lasting[-2:], *lines[-1:]]
        return choice[number % len(choice)]

    def player(self, number):
        """Return one of the last streams whose application has started."""
        return self.line(number, is_staged=True)

    # What happens

    @rule(
        skip=st.integers(1, 3),
        path=st.sampled_from(["a", "a", "a", "nobody"]),
        accepts=rarely_not,
        reads=rarely_not,
    )
    def open(self, skip, path, accepts, reads):
        """The client opens a stream."""
        name = str(int(next(reversed(self.lines), "0")) + skip)
        self.lines[name] = Line(name, accepts, reads)
        self.send({"op": "open", "stream": name, "path": f"{path}/{name}"})

    @used
    @rule(number=numbers, times=st.integers(1, 8))
    def client_sends(self, number, times):
        """The client sends data, whatever became of the stream."""
        line = self.line(number)
        for _ in range(times):
            line.by_client.append(next(self.values))
            self.send({"stream": line.name, "payload": line.by_client[-1]})

    @rule(bad=st.sampled_from([None, *BAD_FRAMES]), number=numbers)
    def client_fidgets(self, bad, number):
        """The client pings, or sends a bad frame."""
        frame, code = bad or ({"op": "ping"}, None)
        if code == "stream-in-use" and self.lines:
            frame = {"op": "open", "stream": self.line(number).name, "path": "a"}
        elif code == "stream-in-use":
            return
        if code:
            self.expected_errors.append(code)
        else:
            self.pings += 1
        self.send(frame)

    @staged
    @rule(number=numbers)
    def accept(self, number):
        """An application accepts, for the first time or not."""
        self.act(self.player(number).actor.send({"type": "websocket.accept"}))

    @staged
    @rule(number=numbers, times=st.integers(1, 3))
    def application_sends(self, number, times):
        """An application sends data, accepted or not."""
        line = self.player(number)
        values = list(itertools.islice(self.values, times))
        line.by_application += values
        if line.is_open and self.is_settled:
            line.owed += values
        for value in values:
            message = {"type": "websocket.send", "text": json.dumps(value)}
            self.act(line.actor.send(message))

    @staged
    @rule(number=numbers)
    def application_reads(self, number):
        """An application receives from now on."""
        self.is_settled = False
        self.player(number).actor.reads.set()

    @staged
    @rule(
        number=numbers, how=st.sampled_from(["close", "refuse", None, KeyError, 4001])
    )
    def end(self, number, how):
        """Either side ends a stream, ended or not."""
        line = self.player(number)
        line.is_ending = True
        self.is_settled = False
        match how:
            case int():
                self.send({"op": "close", "stream": line.name, "code": how})
            case str():
                code = {"close": 4002}.get(how)
                self.act(line.actor.send({"type": "websocket.close", "code": code}))
            case _:
                line.actor.finish(how and how())

    @rule(turns=st.sampled_from([1, 2, 3, TURNS]))
    def wait(self, turns):
        """The server gets on with what there is to do, or gets done with it."""
        self.run(_turns(turns))
        self.is_settled = self.is_settled or turns == TURNS

    @rule()
    def time_passes(self):
        """The time of all that have been disconnected runs out."""
        self.wait(TURNS)
        self.loop.now += CLOSE_TIMEOUT + 1
        self.wait(TURNS)
        for line in self.lines.values():
            assert not (line.actor and line.is_ending) or line.actor.end.done()

    # The rules

    @invariant()
    def rules_hold(self):
        """Check all of them."""
        self.frames_are_legal()
        self.errors_answer_bad_frames()
        self.data_keeps_its_order()
        self.applications_miss_nothing()
        self.applications_see_a_websocket()
        self.ended_streams_are_closed()
        self.streams_are_limited()

    def frames_are_legal(self):
        """Sort the frames that came, and hold each to what came before it."""
        unread = self.client.unread if hasattr(self, "client") else []
        while unread:
            frame = unread.popleft()
            if frame.get("op") == "pong":
                self.pongs += 1
            elif frame.get("op") == "error":
                self.errors.append(frame["code"])
            else:
                frames = self.lines[frame["stream"]].frames
                allowed = {"opened", "closed"} if not frames else {"closed", None}
                assert frame.get("op") in allowed
                assert not frames or frames[-1].get("op") != "closed"
                frames.append(frame)

    def errors_answer_bad_frames(self):
        """Each bad frame has one error, in order, and no good one has any."""
        assert self.errors == self.expected_errors[: len(self.errors)]
        if self.is_settled:
            assert len(self.errors) == len(self.expected_errors)
            assert self.pongs == self.pings

    def data_keeps_its_order(self):
        """What arrives was sent on that stream, each once, in the order of sending."""
        for line in self.lines.values():
            assert _is_part(line.payloads, line.by_application)
            if self.is_settled:
                assert set(line.owed) <= set(line.payloads)
            if line.actor:
                assert _is_part(_data(line.actor.received), line.by_client)
                assert "opened" in line.ops or not _data(line.actor.received)

    def applications_miss_nothing(self):
        """An application that reads has all that was sent on its open stream."""
        for line in self.lines.values():
            if self.is_settled and line.is_open and line.actor.reads.is_set():
                assert _data(line.actor.received) == line.by_client

    def applications_see_a_websocket(self):
        """An application receives one connect, data, and at most one disconnect."""
        for line in self.lines.values():
            kinds = [message["type"] for message in _received(line)]
            counts = collections.Counter(kinds)
            assert counts["websocket.connect"] <= 1
            assert counts["websocket.disconnect"] <= 1
            assert kinds[:1] in ([], ["websocket.connect"])
            assert "websocket.disconnect" not in kinds[:-1]

    def ended_streams_are_closed(self):
        """A stream whose application has ended is closed."""
        for line in self.lines.values():
            if self.is_settled:
                has_ended = line.actor is None or line.actor.end.done()
                assert not has_ended or line.ops[-1] == "closed"

    def streams_are_limited(self):
        """No more applications run than may."""
        actors = [line.actor for line in self.lines.values() if line.actor]
        assert sum(not actor.end.done() for actor in actors) <= MAX_STREAMS

    def teardown(self):
        """End it all: every stream is closed, once, and no task is left."""
        try:
            if self.is_lost:
                self._lose()
            else:
                self._end_streams()
            self.loop.time = time.monotonic
            self.run(self.client.disconnect(timeout=1))
            for task in self.tasks:
                error = task.exception()
                assert error is None or "expected websocket.accept" in str(error)
            assert not asyncio.all_tasks(self.loop)
        finally:
            self.loop.time = time.monotonic
            # Ended above, unless something is wrong.
            with contextlib.suppress(Exception):
                self.run(self.client.disconnect(timeout=0))
            self.run(self.client.__aexit__(None, None, None))
            self.loop.close()

    def _end_streams(self):
        self.wait(TURNS)
        for line in self.lines.values():
            if line.actor:
                line.actor.finish()
        self.wait(TURNS)
        self.rules_hold()
        for line in self.lines.values():
            assert line.ops.count("closed") == 1

    def _lose(self):
        self.client._close(1006, "")  # disconnect() would wait
        self.wait(TURNS)
        self.loop.now += CLOSE_TIMEOUT + 1
        self.wait(TURNS)
        self.frames_are_legal()
        self.applications_see_a_websocket()
        for line in self.lines.values():
            assert line.actor is None or line.actor.end.done()


async def _turns(count):
    """Let the event loop turn."""
    for _ in range(count):
        await asyncio.sleep(0)


def _received(line):
    return line.actor.received if line.actor else []


def _data(messages):
    return [int(message["text"]) for message in messages if "text" in message]


def _is_part(part, whole):
    """Tell if one list is the other with some left out."""
    rest = iter(whole)
    return all(value in rest for value in part)


TestModel = Machine.TestCase
TestModel.settings = settings(
    max_examples=250, stateful_step_count=50, deadline=None, derandomize=True
)
