"""
A server to test clients against: ``served:application``, in a process of its own.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import django
from channels.generic.websocket import AsyncJsonWebsocketConsumer

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "demo.settings")
django.setup()

from channelsmultiplexer import AsyncJsonWebsocketDemultiplexer  # noqa: E402
from consumers import Closes, Echo, Raises, Refuses, Text  # noqa: E402

__all__ = ["Server", "application"]

HERE = Path(__file__).parent


class Where(AsyncJsonWebsocketConsumer):
    """
    Says where it is, and counts what it gets.
    """

    async def connect(self):
        self.count = 0
        await self.accept((self.scope["subprotocols"] or [None])[0])
        where = [self.scope["path"], self.scope["query_string"].decode()]
        await self.send_json(where)

    async def receive_json(self, content):
        self.count += 1
        await self.send_json([self.count, content])


application = AsyncJsonWebsocketDemultiplexer.as_asgi(
    echo=Echo.as_asgi(),
    text=Text.as_asgi(),
    closes=Closes.as_asgi(),
    raises=Raises.as_asgi(),
    refuses=Refuses.as_asgi(),
    rooms=Echo.as_asgi(),
    where=Where.as_asgi(),
)


class Server:
    """
    Serves the application, and can be killed.
    """

    def __init__(self, program):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"ws://127.0.0.1:{self.port}/"
        commands = {
            "uvicorn": "uvicorn --log-level error --lifespan off --host 127.0.0.1",
            "daphne": "daphne -v 0 -b 127.0.0.1",
        }
        self._command = [sys.executable, "-m", *commands[program].split()]
        self._command += ["--port", str(self.port), "served:application"]
        self.start()

    def start(self):
        paths = [str(HERE), str(HERE.parent / "testproject"), *sys.path]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        self._process = subprocess.Popen(
            self._command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def stop(self, how=signal.SIGKILL):
        self._process.send_signal(how)
        self._process.wait()
