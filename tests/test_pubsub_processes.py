"""
Two server processes on one Redis.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import websockets

from redis_server import free_port, server

TESTS = Path(__file__).parent

# As redis_site has them, which isn't imported: it has settings of its own.
STREAMS = [f"s{number}" for number in range(5)]

SOCKETS = 100


@contextlib.contextmanager
def process(redis_url, port, layer):
    """
    Run a Uvicorn that serves redis_site.
    """
    path = f"{TESTS}{os.pathsep}{TESTS.parent / 'testproject'}"
    environment = {**os.environ, "PYTHONPATH": path}
    environment |= {"REDIS_URL": redis_url, "REDIS_LAYER": layer}
    command = [sys.executable, "-m", "uvicorn", "redis_site:application"]
    command += ["--port", str(port), "--lifespan", "off", "--no-access-log"]
    one = subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    try:
        while b"Uvicorn running" not in (line := one.stderr.readline()):
            assert line, "the server has started"
        yield one
    finally:
        one.kill()
        one.stderr.close()
        one.wait()


async def connected(port):
    """
    Return a socket all of whose streams are ready.
    """
    socket = await websockets.connect(f"ws://127.0.0.1:{port}/", compression=None)
    frames = [json.loads(await socket.recv()) for _ in STREAMS]
    assert {frame["payload"] for frame in frames} == {"ready"}
    return socket


async def heard(socket, expected):
    """
    Receive one message for each stream, and see that it is the expected one.
    """
    frames = [json.loads(await socket.recv()) for _ in STREAMS]
    assert sorted(frame["stream"] for frame in frames) == STREAMS
    assert [frame["payload"] for frame in frames] == [expected] * len(STREAMS)


async def tell_all(redis, sockets, text):
    """
    Tell the group and publish, and see that each reaches every stream once.
    """
    await sockets[0].send(json.dumps({"stream": "s0", "payload": text}))
    await asyncio.gather(*(heard(socket, ["group", text]) for socket in sockets))
    redis.call("PUBLISH", "prices.eur", text)
    await asyncio.gather(*(heard(socket, ["redis", text]) for socket in sockets))


@pytest.mark.slow
@pytest.mark.parametrize(
    "layer", ["core.RedisChannelLayer", "pubsub.RedisPubSubChannelLayer"]
)
async def test_two_processes(layer):
    """
    A group message and a publication reach every stream of both processes once, and
    those of a process that died again through the other.
    """
    ports = free_port(), free_port()
    with server() as redis, contextlib.ExitStack() as stack:
        first, _ = [
            stack.enter_context(process(redis.url, port, layer)) for port in ports
        ]
        places = [ports[number % 2] for number in range(SOCKETS)]
        sockets = await asyncio.gather(*map(connected, places))
        await tell_all(redis, sockets, "1")
        first.kill()
        for number in range(0, SOCKETS, 2):
            with pytest.raises(websockets.ConnectionClosed):
                await sockets[number].recv()
            sockets[number] = await connected(ports[1])
        # What came twice the first time would come before this.
        await tell_all(redis, sockets, "2")
        await asyncio.gather(*(socket.close() for socket in sockets))
