"""
What the how-to on Prometheus shows works.
"""

from __future__ import annotations

import re
import textwrap
import urllib.request
from pathlib import Path

import pytest

from channelsmultiplexer import AsyncJsonWebsocketDemultiplexer
from channelsmultiplexer.testing import MultiplexCommunicator
from consumers import Closes, Echo

prometheus_client = pytest.importorskip("prometheus_client")

HOWTO = Path(__file__).parent.parent / "docs" / "howto" / "prometheus.rst"


class ChatDemultiplexer(AsyncJsonWebsocketDemultiplexer):
    applications = {"closes": Closes.as_asgi(), "echo": Echo.as_asgi()}


def blocks():
    """
    Return the how-to's code.
    """
    pattern = r"^\.\. code-block:: python\n\n((?:(?: {4}.*)?\n)+)"
    return [
        textwrap.dedent(block)
        for block in re.findall(pattern, HOWTO.read_text(), re.MULTILINE)
    ]


@pytest.fixture
def url(monkeypatch):
    """
    Run the how-to's code, and return where it serves the figures.
    """
    registry = prometheus_client.CollectorRegistry()
    start = prometheus_client.start_http_server
    servers = []

    def start_anywhere(port):
        servers.append(start(0, "127.0.0.1", registry))

    monkeypatch.setattr(prometheus_client, "REGISTRY", registry)
    monkeypatch.setenv("METRICS_PORT", "9100")
    # The port that the how-to names may be taken on this machine.
    monkeypatch.setattr(prometheus_client, "start_http_server", start_anywhere)
    exec("\n".join(blocks()), {"ChatDemultiplexer": ChatDemultiplexer})
    ((server, thread),) = servers
    yield f"http://127.0.0.1:{server.server_port}/metrics"
    server.shutdown()
    server.server_close()
    thread.join()


async def test_scrape(url):
    """A scrape has the figures, those of rare codes in one."""
    async with MultiplexCommunicator(ChatDemultiplexer()) as client:
        for code in (4001, 4002):
            closes = await client.open("closes")
            await closes.send_json(code)
            await closes.wait_closed()
        await client.open("echo")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url) as response:
        lines = response.read().decode().splitlines()
    labels = 'class="ChatDemultiplexer",'
    for expected in (
        f'multiplexer_open{{{labels}kind="sockets"}} 0.0',
        f'multiplexer_frames_total{{{labels}direction="received"}} 2.0',
        f'multiplexer_closed_total{{{labels}code="other",kind="streams"}} 2.0',
        f'multiplexer_closed_total{{{labels}code="1000",kind="streams"}} 1.0',
    ):
        assert expected in lines
