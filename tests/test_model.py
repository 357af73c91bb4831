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

    def __init__(self, name):
        self.name = name
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


connected = precondition(lambda self: not self.is_lost)
used = precondition(lambda self: self.lines and not self.is_lost)
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
        self.is_lost = False

    @initialize(hangs=st.booleans())
    def connect(self, hangs):
        """Open the socket; all applications hang, or none does."""

        async def application(scope, receive, send):
            actor = Actor(send, hangs)
            self.lines[scope["path"].strip("/")].actor = actor
            await actor.run(receive)

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

    def line(self, number):
        """Return any of the streams."""
        return list(self.lines.values())[number % len(self.lines)]

    def player(self, number):
        """Return any of the streams whose application has started."""
        lines = [line for line in self.lines.values() if line.actor]
        return lines[number % len(lines)]

    # The client

    @connected
    @rule(skip=st.integers(1, 3), path=st.sampled_from(["a", "a", "a", "nobody"]))
    def open(self, skip, path):
        """Open a stream."""
        name = str(int(next(reversed(self.lines), "0")) + skip)
        self.lines[name] = Line(name)
        self.send({"op": "open", "stream": name, "path": f"{path}/{name}"})

    @used
    @rule(number=st.integers(0, 99))
    def open_again(self, number):
        """Open a stream by an id that has been used."""
        self.expected_errors.append("stream-in-use")
        self.send({"op": "open", "stream": self.line(number).name, "path": "a"})

    @used
    @rule(number=st.integers(0, 99), times=st.integers(1, 8))
    def client_sends(self, number, times):
        """Send data on any stream, open or not."""
        line = self.line(number)
        for _ in range(times):
            line.by_client.append(next(self.values))
            self.send({"stream": line.name, "payload": line.by_client[-1]})

    @used
    @rule(number=st.integers(0, 99), code=st.sampled_from([1000, 4001]))
    def client_closes(self, number, code):
        """Close any stream, open or not."""
        line = self.line(number)
        line.is_ending = True
        self.send({"op": "close", "stream": line.name, "code": code})

    @connected
    @rule(bad=st.sampled_from(BAD_FRAMES))
    def client_errs(self, bad):
        """Send a bad frame."""
        frame, code = bad
        self.expected_errors.append(code)
        self.send(frame)

    @connected
    @rule()
    def ping(self):
        """Ask for a pong."""
        self.pings += 1
        self.send({"op": "ping"})

    # The applications

    @staged
    @rule(number=st.integers(0, 99))
    def accept(self, number):
        """Accept, for the first time or not."""
        self.act(self.player(number).actor.send({"type": "websocket.accept"}))

    @staged
    @rule(number=st.integers(0, 99), times=st.integers(1, 3))
    def application_sends(self, number, times):
        """Send data, accepted or not."""
        line = self.player(number)
        values = list(itertools.islice(self.values, times))
        line.by_application += values
        if line.is_open and self.is_settled:
            line.owed += values
        for value in values:
            message = {"type": "websocket.send", "text": json.dumps(value)}
            self.act(line.actor.send(message))

    @staged
    @rule(number=st.integers(0, 99), code=st.sampled_from([None, 1000, 4002]))
    def application_closes(self, number, code):
        """Refuse, or close."""
        line = self.player(number)
        line.is_ending = True
        self.act(line.actor.send({"type": "websocket.close", "code": code}))

    @staged
    @rule(number=st.integers(0, 99))
    def application_reads(self, number):
        """Receive from now on."""
        self.is_settled = False
        self.player(number).actor.reads.set()

    @staged
    @rule(number=st.integers(0, 99), error=st.sampled_from([None, KeyError]))
    def application_ends(self, number, error):
        """Return, or raise."""
        line = self.player(number)
        self.is_settled = False
        line.is_ending = True
        line.actor.finish(error and error())

    # The world

    @rule(turns=st.integers(1, 4))
    def wait_a_little(self, turns):
        """Let the server get on with some of what there is to do."""
        self.run(_turns(turns))

    @rule()
    def settle(self):
        """Let the server get done with it."""
        self.run(_turns(TURNS))
        self.is_settled = True

    @rule()
    def time_passes(self):
        """Let the time of all that have been disconnected run out."""
        self.loop.now += CLOSE_TIMEOUT + 1
        self.settle()

    @connected
    @rule()
    def lose_socket(self):
        """Close the socket under whatever goes on."""
        self.is_settled = False
        self.is_lost = True
        for line in self.lines.values():
            line.is_ending = True
        self.client._close(1006, "")  # disconnect() would wait

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
        if self.is_settled and not self.is_lost:
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
            if self.is_settled and not self.is_lost:
                has_ended = line.actor is None or line.actor.end.done()
                assert not has_ended or line.ops[-1] == "closed"

    def teardown(self):
        """End it all: every stream is closed, once, and no task is left."""
        try:
            for line in self.lines.values():
                if line.actor:
                    line.actor.finish()
            self.settle()
            self.rules_hold()
            for line in self.lines.values():
                assert self.is_lost or line.ops.count("closed") == 1
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
    max_examples=60, stateful_step_count=40, deadline=None, derandomize=True
)
