"""
WebSocket addresses: one socket, and the streams it carries.
"""

from typing import Any

from django.urls import path

from channelsmultiplexer import AsyncJsonWebsocketDemultiplexer
from demo.consumers import (
    ChatConsumer,
    EchoConsumer,
    MetricsConsumer,
    NotesConsumer,
)


class DemoDemultiplexer(AsyncJsonWebsocketDemultiplexer):
    """
    The demo's socket. Each name is a stream, each consumer an ordinary one.
    """

    applications = {
        "echo": EchoConsumer.as_asgi(),
        "metrics": MetricsConsumer.as_asgi(),
        "chat": ChatConsumer.as_asgi(),
        "notes": NotesConsumer.as_asgi(),
    }


# Channels routes with Django's path(), whose stubs know only views.
websocket_urlpatterns: list[Any] = [
    path("ws/", DemoDemultiplexer.as_asgi()),  # type: ignore[arg-type]
]
