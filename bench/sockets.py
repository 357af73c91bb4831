"""
What a page costs a real server: one socket with N streams, beside N sockets.

README.rst says how to read what this prints.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from websockets.asyncio.client import connect

SERVERS = {
    "daphne": ["--bind", "127.0.0.1", "--port", "0"],
    "uvicorn": ["--host", "127.0.0.1", "--port", "0", "--no-access-log"],
    "hypercorn": ["--bind", "127.0.0.1:0", "--workers", "0"],
}

# A page with five parts.
STREAMS = 5

# How often all of them are told something.
TELLINGS = 10


def application():
    """
    Return what is served: an echo at every path, and a demultiplexer of it at /mux/.
    """
    import django
    from django.conf import settings

    settings.configure(
        ALLOWED_HOSTS=["*"],
        CHANNEL_LAYERS={
            "default": {
                "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
                "CONFIG": {"hosts": [os.environ["REDIS_URL"]]},
            }
        },
        INSTALLED_APPS=["channels"],
        SECRET_KEY="benchmark",
    )
    django.setup()

    from channels.generic.websocket import AsyncJsonWebsocketConsumer
    from channels.routing import URLRouter
    from django.urls import path

    from channelsmultiplexer import AsyncJsonWebsocketDemultiplexer

    class Echo(AsyncJsonWebsocketConsumer):
        groups = ["all"]

        async def receive_json(self, content):
            if content == "all":
                await self.channel_layer.group_send("all", {"type": "tell"})
            else:
                await self.send_json(content)

        async def tell(self, event):
            await self.send_json("all")

    echo = Echo.as_asgi()
    demultiplexer = AsyncJsonWebsocketDemultiplexer.as_asgi(echo=echo)
    return URLRouter([path("mux/", demultiplexer), path("echo/", echo)])


async def open_plain(url: str) -> list:
    """
    Open a page's sockets, and have each echo something.
    """
    sockets = []
    for _ in range(STREAMS):
        socket = await connect(f"{url}/echo/", compression=None)
        await socket.send("1")
        await socket.recv()
        sockets.append(socket)
    return sockets


async def open_streams(url: str) -> list:
    """
    Open a page's one socket, and have each of its streams echo something.
    """
    socket = await connect(
        f"{url}/mux/", subprotocols=["channelsmultiplexer.v1"], compression=None
    )
    await socket.recv()
    for number in range(1, STREAMS + 1):
        await socket.send(f'{{"op": "open", "stream": "{number}", "path": "echo"}}')
        await socket.send(f'{{"stream": "{number}", "payload": 1}}')
        await socket.recv()
        await socket.recv()
    return [socket]


def cost(server: str, open_page, pages: int) -> tuple[float, float, float]:
    """
    Return what a page costs a server: the kilobytes it takes, the milliseconds of CPU
    to open it, and the microseconds to tell one of its parts something by a group.
    """
    # As a part of a package, or the servers would take redis.py for redis-py.
    here = Path(__file__).parent
    others = [path for path in sys.path if path != str(here)]
    path = os.pathsep.join([str(here.parent), *others])
    env = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-m", server, *SERVERS[server], "bench.sockets:served"]
    # A file, since a server whose pipe is full would stop.
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(command, env=env, stdout=log, stderr=log) as process,
    ):
        try:
            while not (found := re.search(r"127\.0\.0\.1:([1-9]\d*)", read(log))):
                if process.poll() is not None:
                    raise SystemExit(f"{server} doesn't start:\n{read(log)}")
                time.sleep(0.1)
            url = f"ws://127.0.0.1:{found[1]}"
            return asyncio.run(measure(process.pid, url, open_page, pages))
        finally:
            process.kill()


def read(log) -> str:
    """
    Return what a server has written.
    """
    log.seek(0)
    return log.read()


async def measure(
    pid: int, url: str, open_page, pages: int
) -> tuple[float, float, float]:
    """
    Open pages, tell them something, and see what the server has grown by.
    """
    server = psutil.Process(pid)

    def spent() -> float:
        return sum(server.cpu_times()[:2])

    # What is made once, and what is imported late, is no page's.
    opened = [await open_page(url) for _ in range(20)]
    size, start = server.memory_info().rss, spent()
    opened += [await open_page(url) for _ in range(pages)]
    size, opening = server.memory_info().rss - size, spent() - start
    sockets = [socket for page in opened for socket in page]
    frames = STREAMS * len(opened) // len(sockets)
    start = spent()
    for _ in range(TELLINGS):
        payload = '"all"' if frames == 1 else '{"stream": "1", "payload": "all"}'
        await sockets[0].send(payload)
        await asyncio.gather(*(receive(socket, frames) for socket in sockets))
    telling = spent() - start
    for socket in sockets:
        socket.transport.abort()
    told = TELLINGS * STREAMS * len(opened)
    return size / pages / 1024, opening / pages * 1000, telling / told * 1e6


async def receive(socket, count: int) -> None:
    """
    Receive frames.
    """
    for _ in range(count):
        await socket.recv()


def main() -> None:
    """
    Print the table.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=1000)
    parser.add_argument("--redis", metavar="URL", default="redis://localhost:6379")
    arguments = parser.parse_args()
    pages, os.environ["REDIS_URL"] = arguments.pages, arguments.redis
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}"
        for name in ["channels", "channels_redis", "Django", *SERVERS]
    )
    print(f"CPython {platform.python_version()}, {versions}; {pages} pages\n")
    heads = ["", "sockets a page", "kB a page", "ms to open", "us to tell"]
    print("{:12}{:>16}{:>12}{:>12}{:>12}".format(*heads))
    for server in SERVERS:
        for name, open_page in {"many": open_plain, "one": open_streams}.items():
            size, opening, telling = cost(server, open_page, pages)
            count = STREAMS if name == "many" else 1
            print(
                f"{server:12}{count:>16}{size:>12.0f}{opening:>12.1f}{telling:>12.0f}"
            )


if __name__ == "__main__":
    main()
else:
    served = application()
