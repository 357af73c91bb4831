"""
``manage.py multiplexer_streams``.
"""

from __future__ import annotations

import io
import json

import pytest
from channels.routing import URLRouter
from django.core.management import CommandError, call_command
from django.urls import path

from channelsmultiplexer import AsyncJsonWebsocketDemultiplexer
from consumers import Echo

ECHO = Echo.as_asgi()

unnamed = AsyncJsonWebsocketDemultiplexer.as_asgi(**{"": ECHO, "echo": ECHO})

several = URLRouter(
    [path("a/", unnamed), path("b/", AsyncJsonWebsocketDemultiplexer())]
)

DEMO = """\
/ws/  demo.routing.DemoDemultiplexer
    echo                demo.consumers.EchoConsumer
    metrics             demo.consumers.MetricsConsumer
    notes               demo.consumers.NotesConsumer
    prices              demo.consumers.PricesConsumer
    rooms/<slug:room>/  demo.consumers.RoomConsumer
    rooms/              demo.consumers.RoomConsumer
"""

SEVERAL = """\
/a/  channelsmultiplexer.demultiplexer.AsyncJsonWebsocketDemultiplexer
    (any other)  consumers.Echo
    echo         consumers.Echo

/b/  channelsmultiplexer.demultiplexer.AsyncJsonWebsocketDemultiplexer
    (no streams)
"""


def listing(*args):
    """
    Return what the command writes.
    """
    stdout = io.StringIO()
    call_command("multiplexer_streams", *args, stdout=stdout)
    return stdout.getvalue()


def test_demo():
    """The demo's streams are listed below its one address."""
    assert listing() == DEMO


def test_json():
    """As JSON, a demultiplexer is an object that has its streams."""
    (found,) = json.loads(listing("--json"))
    assert found["path"] == "/ws/"
    assert found["demultiplexer"] == "demo.routing.DemoDemultiplexer"
    room = {
        "stream": "rooms/<slug:room>/",
        "application": "demo.consumers.RoomConsumer",
    }
    assert room in found["streams"]


def test_several(settings):
    """Demultiplexers are set apart, also those that have no streams."""
    settings.ASGI_APPLICATION = f"{__name__}.several"
    assert listing() == SEVERAL


def test_any_path(settings):
    """A demultiplexer that no router leads to is at any path."""
    settings.ASGI_APPLICATION = f"{__name__}.unnamed"
    assert listing().startswith("(any path)  channelsmultiplexer.")
    assert json.loads(listing("--json"))[0]["path"] is None


def test_import_raises(settings, tmp_path, monkeypatch):
    """What the project's module raises is told in a line, by its type."""
    (tmp_path / "raising_asgi.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    settings.ASGI_APPLICATION = "raising_asgi.application"
    with pytest.raises(CommandError, match=r"imported: ZeroDivisionError: division"):
        listing()


def test_nothing(settings):
    """An application without a demultiplexer is said to have none."""
    settings.ASGI_APPLICATION = f"{__name__}.ECHO"
    assert listing() == f"No demultiplexer can be found from {__name__}.ECHO.\n"
    assert json.loads(listing("--json")) == []


@pytest.mark.parametrize(
    ("value", "why"), [("", "is not set"), ("demo.asgi.nothing", "cannot be imported")]
)
def test_no_application(settings, value, why):
    """Without an ASGI_APPLICATION the command fails, and says why."""
    settings.ASGI_APPLICATION = value
    with pytest.raises(CommandError, match=why):
        listing()
