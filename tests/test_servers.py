"""
The same scenarios on Daphne, Uvicorn and Hypercorn, each in a process of its own,
with a real client.
"""

import asyncio
import contextlib
import json
import re
import sys
from dataclasses import dataclass

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from server_process import SERVERS, ServerProcess

V1 = "channelsmultiplexer.v1"

# Seconds in which whatever is waited for happens, on a slow machine.
TIMEOUT = 20


@dataclass(frozen=True)
class Traits:
    """
    In what the servers differ.
    """

    # What the application of a socket sees when its client closes it with 4321.
    # Hypercorn knows only that the socket has gone.
    closed: int = 4321

    # If send() raises when the client is gone. The others ignore what is sent.
    tells_sender: bool = False

    # If the reason of a close reaches the client. Daphne drops it.
    has_reasons: bool = True

    # If the client is stopped while the application doesn't read. Daphne reads on,
    # and keeps it all in memory.
    pushes_back: bool = True


TRAITS = {
    "daphne": Traits(has_reasons=False, pushes_back=False),
    "uvicorn": Traits(tells_sender=True),
    "hypercorn": Traits(closed=1006),
}

# What servers log while nothing is wrong: Uvicorn's and Daphne's chatter, Daphne's
# accesses, and the marks of Server.take_log().
ROUTINE = re.compile(r'\bINFO\b|"WS[A-Z]+ /|^mark of ')


class Server:
    """
    A server process as one test sees it.

    Args:
        process: The process.

        test: The name under which the process records this test's streams.
    """

    def __init__(self, process, test):
        self.traits = TRAITS[process.name]
        self._process = process
        self._test = test

    async def __aenter__(self):
        self._report = await self.connect("/report")
        self._tasks = (await self.report())["tasks"]
        return self

    async def __aexit__(self, *exc_info):
        await self._report.close()

    def connect(self, path="/", **options):
        """
        Return websockets' ``connect()``, to await or to enter.
        """
        return connect(
            self._process.url + path,
            additional_headers={"client": self._test},
            compression=None,
            ping_interval=None,
            **options,
        )

    async def report(self, order=""):
        """
        Return what the process says of itself when it has done as it is told.
        """
        await self._report.send(order)
        return await receive(self._report)

    async def wait_report(self, is_expected, order=""):
        """
        Return the first report that is as expected.
        """

        async def poll():
            while not is_expected(report := await self.report(order)):
                self._last = report
            return report

        try:
            return await asyncio.wait_for(poll(), TIMEOUT)
        except asyncio.TimeoutError:
            pytest.fail(f"the last report was {self._last}")

    async def wait_rest(self):
        """
        Return a report of when every application and every task has ended.
        """
        return await self.wait_report(lambda report: report["tasks"] <= self._tasks)

    async def take_log(self):
        """
        Return what the server has logged in this test, or since the last call.
        """
        await self.report("mark")
        # What the process wrote before it has been read when this has.
        self._process.wait_log(f"mark of {re.escape(self._test)}\n")
        return self._process.take_log()


@pytest.fixture(scope="module", params=SERVERS)
def process(request):
    """
    A server that serves all the tests of this module.
    """
    with ServerProcess(request.param, "server_application:application") as process:
        # Its start is none of the tests' business: two of the three say that the
        # application knows no lifespan.
        process.take_log()
        yield process


@pytest.fixture
async def server(process, request, monkeypatch):
    """
    The server for one test, which must leave nothing running and nothing unexpected
    in the log: a test that provokes an error takes the log.
    """
    # From version 15 on, websockets would ask a proxy that the environment names.
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    async with Server(process, request.node.name) as server:
        yield server
        try:
            await server.wait_rest()
        finally:
            log = await server.take_log()
            # To be shown by pytest if the test has failed, or does now.
            sys.stdout.write(log)
        assert [line for line in log.splitlines() if not ROUTINE.search(line)] == []


async def receive(socket):
    """
    Return the next frame, decoded if it is text.
    """
    frame = await asyncio.wait_for(socket.recv(), TIMEOUT)
    return json.loads(frame) if isinstance(frame, str) else frame


async def ask(socket, frame):
    """
    Send a frame, and return the next.
    """
    await socket.send(frame if isinstance(frame, bytes) else json.dumps(frame))
    return await receive(socket)


async def wait_close(socket):
    """
    Return the code and the reason that the server closes a socket with.
    """
    await asyncio.wait_for(socket.wait_closed(), TIMEOUT)
    # Of the protocol: the connection itself has had them since websockets 14.
    return socket.protocol.close_code, socket.protocol.close_reason


async def send_deaf(socket, amount, stream=b"deaf"):
    """
    Send an amount of bytes to a deaf application, 64 KiB a frame.
    """
    for _ in range(amount // 2**16):
        await socket.send(bytes([len(stream)]) + stream + bytes(2**16))


@contextlib.asynccontextmanager
async def v1_socket(server, path="/"):
    """
    Open a socket of the v1 dialect, and read its ``hello``.
    """
    async with server.connect(path, subprotocols=[V1]) as socket:
        assert (await receive(socket))["op"] == "hello"
        yield socket


async def open_stream(socket, stream, path):
    """
    Open a stream, and return the answer.
    """
    return await ask(socket, {"op": "open", "stream": stream, "path": path})


# Bare


async def test_echo(server):
    """Two streams of a socket are answered by their own applications."""
    async with server.connect() as socket:
        for stream in "one", "two":
            frame = {"stream": stream, "payload": {"to": stream}}
            assert await ask(socket, frame) == frame


async def test_text(server):
    """Text that isn't JSON comes back as it was, the empty text included."""
    async with server.connect() as socket:
        for text in "not JSON: é\u2028", "":
            frame = {"stream": "one", "text": text}
            assert await ask(socket, frame) == frame


async def test_binary(server):
    """Bytes come back as they were."""
    async with server.connect() as socket:
        frame = b"\x03one" + bytes(range(256))
        assert await ask(socket, frame) == frame


async def test_refusal(server):
    """A socket that every application refuses is refused with HTTP status 403."""
    with pytest.raises(InvalidStatus) as refusal:
        await server.connect("/lone-refusing")
    assert refusal.value.response.status_code == 403


async def test_close(server):
    """The socket closes with the code and the reason of the last application."""
    reason = "as you wish" if server.traits.has_reasons else ""
    async with server.connect("/lone-closing") as socket:
        await socket.send('{"stream": "lone", "payload": 4321}')
        assert await wait_close(socket) == (4321, reason)


async def test_close_with_forbidden_code(server):
    """A code that Daphne forbids becomes one that it allows."""
    async with server.connect("/lone-closing") as socket:
        await socket.send('{"stream": "lone", "payload": 1011}')
        assert (await wait_close(socket))[0] == 4500


async def test_close_of_one(server):
    """An application that closes leaves the others alone."""
    async with server.connect() as socket:
        await socket.send('{"stream": "closing", "payload": 4321}')
        frame = {"stream": "one", "payload": "still here"}
        assert await ask(socket, frame) == frame


async def test_raising(server):
    """An application that raises leaves the others alone, and is logged."""
    async with server.connect() as socket:
        await socket.send('{"stream": "raising", "payload": null}')
        frame = {"stream": "one", "payload": "still here"}
        assert await ask(socket, frame) == frame
    await server.wait_rest()
    assert (await server.take_log()).count("RuntimeError: raised by a frame") == 1


async def test_raising_last(server):
    """When the last application raises the socket is closed with 4500."""
    async with server.connect("/lone-raising") as socket:
        await socket.send('{"stream": "lone", "payload": null}')
        assert await wait_close(socket) == (4500, "")
    assert "RuntimeError: raised by a frame" in await server.take_log()


async def test_raising_at_once(server):
    """A socket is refused with HTTP status 500 when all it has is an exception."""
    with pytest.raises(InvalidStatus) as refusal:
        await server.connect("/lone-raising-at-once")
    assert refusal.value.response.status_code == 500
    await server.wait_rest()
    assert "RuntimeError: raised at once" in await server.take_log()


async def test_invalid_frames(server):
    """Too many bad frames close the socket with 4400."""
    async with server.connect() as socket:
        for _ in range(3):
            assert (await ask(socket, {}))["error"]["code"] == "invalid-envelope"
        reason = "too many invalid frames" if server.traits.has_reasons else ""
        assert await wait_close(socket) == (4400, reason)
    assert (await server.take_log()).count("Invalid multiplexed frame") == 3


async def test_client_closes(server):
    """A client that closes disconnects every application once, with its code."""
    async with server.connect("/five") as socket:
        await ask(socket, {"stream": "e", "payload": None})
        await socket.close(4321)
    ends = (await server.wait_rest())["ends"]
    assert ends == {f"Echo {server.traits.closed}": 5}


async def test_client_vanishes(server):
    """A client that vanishes disconnects every application once."""
    # With 1006. New versions of Uvicorn take a connection that ends without a close
    # frame for one whose close frame has no code, which is 1005.
    async with server.connect("/five") as socket:
        await ask(socket, {"stream": "e", "payload": None})
        socket.transport.abort()
    ends = (await server.wait_rest())["ends"]
    assert ends in ({"Echo 1006": 5}, {"Echo 1005": 5})


async def test_client_vanishes_while_sent_to(server):
    """A client that vanishes is no error to the application that sends to it."""
    async with server.connect("/lone-talking") as socket:
        await receive(socket)
        socket.transport.abort()
    assert sum((await server.wait_rest())["ends"].values()) == 1


# v1


async def test_v1_subprotocol(server):
    """A client that offers the dialect gets it, and the limits of the socket."""
    async with server.connect(subprotocols=["other", V1]) as socket:
        assert socket.subprotocol == V1
        hello = {"op": "hello", "heartbeat": 25, "max_streams": 100}
        assert await receive(socket) == hello


async def test_v1_open(server):
    """An application finds itself at the path that its stream was opened with."""
    async with v1_socket(server) as socket:
        opened = await open_stream(socket, "7", "locator/caf%C3%A9/?since=%39")
        assert opened == {"op": "opened", "stream": "7", "subprotocol": None}
        answer = await ask(socket, {"stream": "7", "payload": None})
        assert answer == {"stream": "7", "payload": ["/café/", "since=%39"]}


async def test_v1_stream_subprotocol(server):
    """A stream has a subprotocol of its own."""
    async with v1_socket(server) as socket:
        frame = {"op": "open", "stream": "1", "path": "locator", "subprotocols": ["a"]}
        opened = {"op": "opened", "stream": "1", "subprotocol": "a"}
        assert await ask(socket, frame) == opened


async def test_v1_pipelining(server):
    """Frames sent right after the open wait for the application, in order."""
    async with v1_socket(server) as socket:
        await socket.send('{"op": "open", "stream": "1", "path": "one"}')
        await socket.send('{"stream": "1", "text": "first"}')
        await socket.send(b"\x011second")
        assert (await receive(socket))["op"] == "opened"
        assert await receive(socket) == {"stream": "1", "text": "first"}
        assert await receive(socket) == b"\x011second"


@pytest.mark.parametrize("code", [4321, 1011])
async def test_v1_close(server, code):
    """The client gets any close code and its reason, also where Daphne wouldn't."""
    async with v1_socket(server) as socket:
        await open_stream(socket, "1", "closing")
        closed = {"op": "closed", "stream": "1", "code": code, "reason": "as you wish"}
        assert await ask(socket, {"stream": "1", "payload": code}) == closed


async def test_v1_refusal(server):
    """A stream is refused by closing it."""
    async with v1_socket(server) as socket:
        closed = await open_stream(socket, "1", "refusing")
        assert closed == {"op": "closed", "stream": "1", "code": 4403, "reason": ""}


async def test_v1_raising(server):
    """An application that raises ends its own stream with 1011, and is logged."""
    async with v1_socket(server) as socket:
        await open_stream(socket, "1", "raising")
        await open_stream(socket, "2", "one")
        closed = await ask(socket, {"stream": "1", "payload": None})
        assert closed == {"op": "closed", "stream": "1", "code": 1011, "reason": ""}
        frame = {"stream": "2", "payload": "still here"}
        assert await ask(socket, frame) == frame
    assert "RuntimeError: raised by a frame" in await server.take_log()


async def test_v1_client_closes_stream(server):
    """A client that closes a stream disconnects its application, and no other."""
    async with v1_socket(server) as socket:
        await open_stream(socket, "1", "one")
        await open_stream(socket, "2", "two")
        close = {"op": "close", "stream": "1", "code": 1008, "reason": "enough"}
        assert await ask(socket, close) == {**close, "op": "closed"}
        assert (await server.report())["ends"] == {"Echo 1008": 1}
        frame = {"stream": "2", "payload": "still here"}
        assert await ask(socket, frame) == frame


async def test_v1_invalid_frames(server):
    """Too many bad frames close the socket, and its code is that of every stream."""
    async with v1_socket(server) as socket:
        await open_stream(socket, "1", "one")
        await open_stream(socket, "2", "two")
        for _ in range(3):
            assert (await ask(socket, {}))["op"] == "error"
        assert (await wait_close(socket))[0] == 4400
    assert (await server.wait_rest())["ends"] == {"Echo 4400": 2}
    assert (await server.take_log()).count("Invalid multiplexed frame") == 3


async def test_v1_client_vanishes(server):
    """A client that vanishes disconnects the application of every stream once."""
    async with v1_socket(server, "/five") as socket:
        for stream in range(1, 21):
            await open_stream(socket, str(stream), "abcde"[stream % 5])
        socket.transport.abort()
    ends = (await server.wait_rest())["ends"]
    assert ends in ({"Echo 1006": 20}, {"Echo 1005": 20})


# Many sockets

STREAMS = 5

# Less than five objects a stream of the fewer, an object a stream of the more. Servers
# and interpreter keep some, and Daphne keeps a closed socket for a second.
OBJECTS = 2500

# Bytes, less than half of what the streams of a socket take while they are open. An
# allocator that has some of every page in use gives none back.
MEMORY = 32 * 2**10


async def open_socket(server, number):
    """
    Open a socket with five streams, of the one dialect or of the other.
    """
    dialect = [V1] if number % 2 else None
    socket = await server.connect("/five", subprotocols=dialect)
    if number % 2:
        await receive(socket)
        for stream, path in enumerate("abcde", 1):
            await open_stream(socket, str(stream), path)
    else:
        # The applications start in order, so when the last answers all have started.
        await ask(socket, {"stream": "e", "payload": None})
    return socket


async def open_and_close(server, count):
    """
    Open so many sockets, fifty at once, and close them.
    """
    sockets = []
    while len(sockets) < count:
        opening = [open_socket(server, number) for number in range(50)]
        sockets += await asyncio.gather(*opening)
    assert (await server.report())["consumers"] == count * STREAMS
    await asyncio.gather(*(socket.close(4321) for socket in sockets))


async def wait_objects(server, before):
    """
    Return a report of when there are hardly more objects than before.
    """
    await server.wait_rest()
    limit = before["objects"] + OBJECTS
    return await server.wait_report(
        lambda report: report["objects"] < limit and not report["consumers"], "collect"
    )


@pytest.mark.parametrize("count", [100, pytest.param(500, marks=pytest.mark.slow)])
async def test_many_sockets(server, count):
    """Of many sockets with 5 streams each nothing is left when they are closed."""
    cold = await server.report("collect")
    await open_and_close(server, count)
    before = await wait_objects(server, cold)
    await open_and_close(server, count)
    after = await wait_objects(server, before)
    assert after["memory"] < before["memory"] + count * MEMORY
    ends = 2 * count * STREAMS
    assert after["ends"] == {f"Echo {server.traits.closed}": ends}


# Applications that don't read

# More than a server, the kernel and the client hold for a socket that isn't read:
# about 10 MiB.
FLOOD = 32 * 2**20


async def is_stopped(server, socket, flood):
    """
    Tell if a socket's server stops reading from it before the flood is over.
    """
    reports = 0
    # It has stopped if it doesn't read while it is seen to serve another socket.
    while reports < 20 and not flood.done():
        unsent = socket.transport.get_write_buffer_size()
        await server.report()
        stands = 0 < unsent == socket.transport.get_write_buffer_size()
        reports = reports + 1 if stands else 0
    return not flood.done()


async def test_overflow_wait(server):
    """The server stops a client whose application doesn't read, and nothing is lost."""
    async with server.connect("/waiting") as socket:
        flood = asyncio.create_task(send_deaf(socket, FLOOD))
        assert await is_stopped(server, socket, flood) is server.traits.pushes_back
        await server.report("hear")
        await asyncio.wait_for(flood, TIMEOUT)
        await server.wait_report(lambda report: report["heard"] == FLOOD)


async def test_client_vanishes_while_unread(server):
    """A client that vanishes behind unread frames disconnects each application once."""
    async with server.connect("/talking") as socket:
        flood = asyncio.create_task(send_deaf(socket, FLOOD))
        await is_stopped(server, socket, flood)
        socket.transport.abort()
        with contextlib.suppress(ConnectionClosed):
            await flood
    if server.traits.tells_sender:
        # No websocket.disconnect can be read. The application that sends is told
        # nevertheless; so is the other, but its consumer is busy.
        await server.wait_report(lambda report: report["ends"] == {"Talking 1006": 1})
    await server.report("hear")
    assert sorted((await server.wait_rest())["ends"].values()) == [1, 1]


async def test_overflow_close(server):
    """A stream whose application doesn't read ends with 1013, and no other does."""
    async with v1_socket(server, "/overflowing") as socket:
        await open_stream(socket, "1", "deaf")
        await open_stream(socket, "2", "echo")
        await send_deaf(socket, 2**21, stream=b"1")
        closed = {"op": "closed", "stream": "1", "code": 1013, "reason": "inbox full"}
        assert await receive(socket) == closed
        assert await ask(socket, b"\x012still here") == b"\x012still here"
        await server.report("hear")
