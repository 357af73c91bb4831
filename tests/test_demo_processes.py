"""
The demo on many processes: what its README says, by the README's own commands.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest
from redis import Redis

from channelsmultiplexer.client import Multiplex
from channelsmultiplexer.pubsub import Multiplexer
from redis_server import free_port
from requirement import program
from server_process import LoggedProcess

TESTPROJECT = Path(__file__).parent.parent / "testproject"

README = (TESTPROJECT / "README.rst").read_text()
README = README.partition("\nRun it on many processes\n")[2].partition("\nRead it\n")[0]

PATHS = ["rooms/lobby/", "notes", "prices", "metrics", "echo"]

# Seconds, far more than anything here takes on a slow machine.
PATIENCE = 30


class Shell:
    """
    Runs the README's commands, on ports that are free and in a folder of its own.

    Attributes:
        url: Where the page is.

        redis_url: Where Redis is.
    """

    def __init__(self, folder, layer="core"):
        self._ports = {
            number: str(free_port()) for number in ("6379", "8000", "8001", "8002")
        }
        self.url = f"http://127.0.0.1:{self._ports['8000']}/"
        self.redis_url = f"redis://127.0.0.1:{self._ports['6379']}"
        self._folder = folder
        self._environment = {
            "DEMO_CHANNEL_LAYER": layer,
            "DEMO_DATABASE": str(folder / "demo.sqlite3"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "TMPDIR": str(folder),
        }
        config = (TESTPROJECT / "nginx.conf").read_text()
        (folder / "nginx.conf").write_text(self._moved(config))

    def run(self, words):
        """
        Run the one command that these words are in, and return its process.
        """
        commands = re.findall(r"^    (\S.*)$", README, re.MULTILINE)
        (command,) = [line for line in commands if words in line]
        command = self._moved(command).replace("$PWD", str(self._folder))
        # So that it's the program that signals reach, not the shell.
        command = ["bash", "-c", f"exec env {command}"]
        return LoggedProcess(command, cwd=TESTPROJECT, environment=self._environment)

    def _moved(self, text):
        """Return a text with the ports of now."""
        return re.sub("|".join(self._ports), lambda match: self._ports[match[0]], text)


@contextlib.contextmanager
def started(shell, log, *commands, ended_by=signal.SIGTERM):
    """
    Run commands, each known by a word, that log something once they have started.
    """
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(shell.run(command)) for command in commands]
        for process in processes:
            stack.callback(process.stop, ended_by)
            process.wait_log(log)
        yield


@pytest.fixture
def shell(tmp_path, request):
    """
    Return a shell of a machine on which Redis runs.
    """
    program("redis-server")
    shell = Shell(tmp_path, getattr(request, "param", "core"))
    with started(shell, "Ready to accept connections", "redis-server --port"):
        yield shell


@pytest.fixture
def database(shell):
    """
    Make the database of the shell's machine.
    """
    with shell.run("manage.py migrate") as migration:
        assert migration.wait() == 0


class Visitor:
    """
    A client with all of the demo's streams.

    Attributes:
        process: The id of the server's process that it is connected to.
    """

    def __init__(self, mux):
        self.process = None
        self._mux = mux
        self._events = mux.events()

    @classmethod
    @contextlib.asynccontextmanager
    async def entered(cls, url):
        """
        Be connected, and in all streams.
        """
        uri = f"{url.replace('http:', 'ws:')}ws/"
        # The demo's socket is for its own pages, as a browser tells.
        options = {"headers": {"Origin": url}, "open_timeout": PATIENCE}
        async with Multiplex(uri, dialect="v1", **options) as mux:
            visitor = cls(mux)
            await visitor._enter()
            yield visitor

    async def come_back(self):
        """
        Wait until all streams are open again, on another process.
        """
        gaps = set()
        while len(gaps) < len(PATHS):
            event = await asyncio.wait_for(anext(self._events), PATIENCE)
            if event.name == "gap":
                gaps.add(event.channel)
        await self._begin()

    async def say(self, path, message):
        """
        Send a message on a stream.
        """
        await self._streams[path].send(message)

    async def hear(self, path):
        """
        Return the next message of a stream.
        """
        return await self._streams[path].recv(PATIENCE)

    async def _enter(self):
        """Open the streams."""
        opening = (self._mux.open(path, timeout=PATIENCE) for path in PATHS)
        streams = await asyncio.gather(*opening)
        self._streams = dict(zip(PATHS, streams, strict=True))
        await self._begin()

    async def _begin(self):
        """Take what the streams begin with."""
        assert (await self.hear("rooms/lobby/"))["event"] == "welcome"
        assert (await self.hear("notes"))["event"] == "list"
        old = self.process
        while self.process == old:
            self.process = (await self.hear("metrics"))["process"]


async def enter(stack, url, count):
    """
    Return so many visitors, who leave with the stack.
    """
    visitors = [stack.enter_async_context(Visitor.entered(url)) for _ in range(count)]
    return await asyncio.gather(*visitors)


async def hear_once(shell, visitors, text):
    """
    See that messages in two groups and a price reach everybody, and come next.
    """
    said = {"name": "Ann", "text": text}
    await visitors[0].say("rooms/lobby/", said)
    await visitors[0].say("notes", {"action": "add", "text": text})
    with Redis.from_url(shell.redis_url) as redis:
        redis.publish("prices.gold", text)
    for visitor in visitors:
        assert await visitor.hear("rooms/lobby/") == {"event": "message", **said}
        assert (await visitor.hear("notes"))["note"]["text"] == text
        price = {"event": "price", "name": "gold", "price": text}
        assert await visitor.hear("prices") == price
        await visitor.say("echo", text)
        assert await visitor.hear("echo") == text


async def see_one_killed(shell, visitors):
    """
    Kill the first visitor's process, and see that those who were there come back.

    All hear each other before and after, once: what came twice would be heard
    instead of what is said next.
    """
    await hear_once(shell, visitors, "1")
    killed = visitors[0].process
    gone = [visitor for visitor in visitors if visitor.process == killed]
    os.kill(killed, signal.SIGKILL)
    await asyncio.gather(*(visitor.come_back() for visitor in gone))
    await hear_once(shell, visitors, "2")
    await hear_once(shell, visitors, "3")


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize(
    ("shell", "count"),
    [
        ("core", 10),
        pytest.param("core", 100, marks=pytest.mark.slow),
        pytest.param("pubsub", 100, marks=pytest.mark.slow),
    ],
    indirect=["shell"],
)
async def test_daphnes_behind_nginx(shell, count):
    """
    Visitors of two Daphnes hear one another and the prices; one is killed, and its
    visitors are on the other.
    """
    program("nginx")
    daphnes = [f"daphne --port {port}" for port in ("8001", "8002")]
    # Stopped in any other way while its clients leave, Daphne can wait for ever for
    # the thread of a synchronous consumer, which waits for the event loop.
    with (
        started(shell, "Listening on TCP", *daphnes, ended_by=signal.SIGKILL),
        started(shell, "start worker process", "nginx -e"),
    ):
        async with contextlib.AsyncExitStack() as stack:
            visitors = await enter(stack, shell.url, count)
            # nginx has given each as many as the other.
            processes = Counter(visitor.process for visitor in visitors)
            assert list(processes.values()) == [count // 2] * 2
            await see_one_killed(shell, visitors)
            assert len({visitor.process for visitor in visitors}) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("shell", ["core", "pubsub"], indirect=True)
async def test_uvicorn_workers(shell):
    """Visitors of two workers hear one another; one is killed, and all go on."""
    with started(shell, "(?s)(Application startup complete.*){2}", "uvicorn --port"):
        async with contextlib.AsyncExitStack() as stack:
            visitors = await enter(stack, shell.url, 10)
            # The system gives a connection to whichever worker is quicker.
            while len({visitor.process for visitor in visitors}) == 1:
                visitors += await enter(stack, shell.url, 10)
            await see_one_killed(shell, visitors)


async def test_prices(shell):
    """Prices are published by the demo's program, until Ctrl-C, and by hand."""
    async with Multiplexer(shell.redis_url) as mpx:
        async with mpx.subscribe(patterns=["prices.*"]) as prices:
            with shell.run("publish_prices") as publisher:
                price = await asyncio.wait_for(anext(prices), PATIENCE)
                assert float(price.data) > 0
                assert publisher.stop(signal.SIGINT) == 0
        async with mpx.subscribe("prices.gold") as gold:
            with shell.run("redis-cli"):
                price = await asyncio.wait_for(anext(gold), PATIENCE)
                assert price.data == b"3402.50"
