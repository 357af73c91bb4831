"""
Tries what was installed, as a newcomer would: server, client, browser module.

It is run by ``tox -e release`` in an environment that has the wheel and nothing of the
checkout.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

import channelsmultiplexer
from channelsmultiplexer.client import Multiplex

SITE = """
import django
from django.conf import settings

settings.configure(
    ALLOWED_HOSTS=["*"],
    INSTALLED_APPS=["daphne", "channels", "channelsmultiplexer"],
    SECRET_KEY="for a minute",
)
django.setup()

from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channelsmultiplexer import AsyncJsonWebsocketDemultiplexer


class EchoConsumer(AsyncJsonWebsocketConsumer):
    async def receive_json(self, content):
        await self.send_json(content)


application = AsyncJsonWebsocketDemultiplexer.as_asgi(echo=EchoConsumer.as_asgi())
"""

PAGE = """
const { Multiplex } = await import(process.argv[2]);
const mux = new Multiplex(process.argv[3]);
const echo = mux.stream("echo");
echo.send([1, 2]);
for await (const value of echo) {
  if (JSON.stringify(value) !== "[1,2]") process.exit(1);
  break;
}
mux.close();
"""


async def try_client(url: str) -> None:
    """
    Have a stream echo something.
    """
    async with Multiplex(url, dialect="v1") as mux:
        echo = await mux.open("echo")
        await echo.send({"hello": "world"})
        answer = await echo.recv(timeout=10)
        if answer != {"hello": "world"}:
            raise SystemExit(f"expected what was sent, got {answer!r}")


def try_module(url: str, folder: Path) -> None:
    """
    Have the browser module do the same, in Node.
    """
    static = files("channelsmultiplexer") / "static/channelsmultiplexer"
    page = folder / "page.mjs"
    page.write_text(PAGE)
    node = shutil.which("node")
    if node is None:
        raise SystemExit("node is not installed")
    module = str(static / "multiplex.js")
    # Node 20 has WebSocket behind this flag; later versions take the flag, too.
    command = [node, "--experimental-websocket", str(page), module, url]
    subprocess.run(command, check=True, timeout=30)


def main() -> None:
    """
    Serve, and try.
    """
    source = Path(channelsmultiplexer.__file__)
    if "site-packages" not in source.parts:
        raise SystemExit(f"expected the installed package, got {source}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "site_asgi.py").write_text(SITE)
        with subprocess.Popen(
            [sys.executable, "-m", "daphne", "--port", "0", "site_asgi:application"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": name, "PYTHONUNBUFFERED": "1"},
            stderr=subprocess.PIPE,
            text=True,
        ) as server:
            try:
                log = ""
                while not (found := re.search(r"127\.0\.0\.1:([1-9]\d*)", log)):
                    line = server.stderr.readline() if server.stderr else ""
                    if not line:
                        raise SystemExit(f"the server doesn't start:\n{log}")
                    log += line
                url = f"ws://127.0.0.1:{found[1]}/"
                asyncio.run(try_client(url))
                try_module(url, folder)
            finally:
                server.terminate()
    print(f"channelsmultiplexer {channelsmultiplexer.__version__}: fine")


if __name__ == "__main__":
    main()
