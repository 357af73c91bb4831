"""
``python -m channelsmultiplexer``, as a shell would run it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys

import pytest

from channelsmultiplexer.__main__ import main
from feed import Feed, within
from served import Server


@pytest.fixture(scope="module")
def server():
    """
    Run a demultiplexer.
    """
    server = Server("uvicorn")
    yield server
    server.stop()


async def run(*arguments, interrupt=False):
    """
    Run the command, and return its code, its lines, and its errors.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "channelsmultiplexer", *arguments),
        # In development mode asyncio warns of whatever takes 0.1 seconds.
        env={**os.environ, "PYTHONDEVMODE": ""},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    first = b""
    if interrupt:
        first = await within(process.stdout.readline())
        process.send_signal(signal.SIGINT)
    out, errors = await asyncio.wait_for(process.communicate(), 20)
    lines = [json.loads(line) for line in (first + out).splitlines()]
    return process.returncode, lines, errors.decode()


@pytest.mark.parametrize("options", [["--timeout", "20"], ["--bare", "--timeout=20"]])
async def test_streams(server, options):
    """It sends to streams, prints what they say, and leaves after the count."""
    streams = ["--stream", "echo", "--stream", "text"]
    code, lines, errors = await run(
        server.url, *options, *streams, "--send", "[1]", "--count", "2"
    )
    # The server may not be up yet.
    assert (code, [e for e in errors.splitlines() if "retrying" not in e]) == (0, [])
    assert sorted(lines, key=str) == [
        {"stream": "echo", "payload": [1]},
        {"stream": "text", "payload": [1]},
    ]


async def test_refused(server):
    """A stream that is refused is said to be, with the code."""
    code, lines, errors = await run(server.url, "--timeout=20", "--stream", "refuses")
    assert (code, lines) == (1, [])
    assert errors.splitlines()[-1].startswith("refuses: refused, closed with 4403")


async def test_interrupt():
    """Ctrl-C leaves in good order; --stats are printed then."""

    async def greet(socket):
        await socket.send(await socket.recv())

    message = {"stream": "a", "n": 1}
    async with Feed(greet) as feed:
        arguments = ["--channel-key", "stream", "--subscribe", "a", "--stats"]
        arguments += ["--send", json.dumps(message)]
        code, lines, errors = await run(feed.url, *arguments, interrupt=True)
        assert (code, lines) == (0, [{"stream": "a", "payload": message}])
        stats = json.loads(errors)
        assert (stats["received"], stats["active_subscriptions"]) == (1, 1)
        assert stats["connection_stats"]["state"] == "connected"
        await within(feed.sockets[0].wait_closed())
        assert feed.sockets[0].close_code == 1000


async def test_feed():
    """Without channels it prints all that comes."""

    async def greet(socket):
        await socket.send(await socket.recv())

    async with Feed(greet) as feed:
        code, lines, _ = await run(feed.url, "--send", '{"a":1}', "--count", "1")
        assert (code, lines) == (0, [{"a": 1}])


async def test_header():
    """A header that is given goes out with the handshake."""

    async def greet(socket):
        await socket.send(json.dumps(socket.request.headers["Origin"]))

    origin = "https://example.com"
    async with Feed(greet) as feed:
        _, lines, _ = await run(feed.url, "--header", f"Origin: {origin}", "--count=1")
    assert lines == [origin]


async def test_repeated_header():
    """A header that is given twice goes out twice."""

    async def greet(socket):
        await socket.send(json.dumps(socket.request.headers.get_all("Cookie")))

    async with Feed(greet) as feed:
        cookies = ["--header", "Cookie: a=1", "--header", "Cookie: b=2"]
        _, lines, _ = await run(feed.url, *cookies, "--count=1")
    assert lines == [["a=1", "b=2"]]


async def test_count():
    """The count is that of all channels together."""

    async def greet(socket):
        for _ in range(3):
            await socket.send('{"stream":"a"}')
            await socket.send('{"stream":"b"}')

    async with Feed(greet) as feed:
        channels = ["--channel-key=stream", "--subscribe=a", "--subscribe=b"]
        _, lines, _ = await run(feed.url, *channels, "--count=3")
    assert len(lines) == 3


async def test_cannot_connect():
    """It says where it couldn't connect to, and why, in a line."""
    async with Feed() as feed:
        feed.answers = [(403, {})]
        code, _, errors = await run(feed.url)
    assert code == 1
    assert errors.startswith(f"{feed.url}: closed with 1006 the server answered with")
    assert errors.count("\n") == 1


async def test_first_messages():
    """What a server sends at once is printed, whether channels are named or not."""

    async def greet(socket):
        await socket.send('{"stream":"a"}')
        await socket.send('{"stream":"b"}')

    async with Feed(greet) as feed:
        one = ["--channel-key", "stream", "--count", "1"]
        _, lines, _ = await run(feed.url, *one, "--subscribe", "b")
        assert lines == [{"stream": "b", "payload": {"stream": "b"}}]
        _, lines, _ = await run(feed.url, *one)
        assert lines == [{"stream": "a"}]


async def test_first_messages_of_a_stream():
    """What a stream of bare says at once is printed."""

    async def greet(socket):
        await socket.send('{"stream":"a","payload":1}')

    async with Feed(greet) as feed:
        arguments = ["--bare", "--stream", "a", "--count", "1"]
        _, lines, _ = await run(feed.url, *arguments)
        assert lines == [{"stream": "a", "payload": 1}]


async def test_losses():
    """A loss and what follows are told of on standard error."""
    closed = asyncio.Event()

    async def greet(socket):
        if not closed.is_set():
            closed.set()
            return await socket.close(1012, "restart")
        await socket.send("1")

    async with Feed(greet) as feed:
        code, lines, errors = await run(feed.url, "--count", "1")
    assert (code, lines) == (0, [1])
    first, second, *_ = errors.splitlines()
    assert first == "disconnected, 1012 restart"
    assert second.startswith("retrying, in ")


async def test_nobody_listens():
    """It says what the last attempt failed with, when time is up."""
    async with Feed() as feed:
        feed.answers = [(503, {})] * 50
        code, _, errors = await run(feed.url, "--timeout", "0.1")
    assert code == 1
    last = errors.splitlines()[-1]
    assert last.endswith("in 0.1 s: the server answered with HTTP 503")


async def test_invalid_url():
    """A URL that is none is printed once, and whole."""
    url = "htp://a.long.name.example.com/a/long/path/to/where/it/is/"
    code, _, errors = await run(url)
    assert code == 1
    assert (errors.count(url), errors.count("\n")) == (1, 1)


async def test_nobody_reads():
    """When nobody reads what it prints it ends, and says nothing."""
    gone = asyncio.Event()

    async def greet(socket):
        await socket.send("1")
        await within(gone.wait())
        await socket.send("2")

    ours, theirs = os.pipe()
    async with Feed(greet) as feed:
        command = [sys.executable, "-m", "channelsmultiplexer", feed.url]
        process = await asyncio.create_subprocess_exec(
            *command, stdout=theirs, stderr=asyncio.subprocess.PIPE
        )
        os.close(theirs)
        assert await asyncio.to_thread(os.read, ours, 1) == b"1"
        os.close(ours)
        gone.set()
        assert await within(process.communicate()) == (None, b"")
        assert process.returncode == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--subscribe", "a"],
        ["--stream", "a", "--channel-key", "b"],
        ["--header", "Origin"],
        ["--count", "0"],
        ["--timeout", "0"],
        ["--timeout", "nan"],
        ["--bare"],
    ],
)
def test_usage(arguments, capsys):
    """Options that make no sense are a usage error."""
    with pytest.raises(SystemExit) as caught:
        main(["ws://x", *arguments])
    assert caught.value.code == 2
    assert "error:" in capsys.readouterr().err
