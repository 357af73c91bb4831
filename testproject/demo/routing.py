"""
WebSocket addresses: one socket, and the streams it carries.
"""

from typing import Any

from channels.routing import URLRouter
from django.urls import path

from channelsmultiplexer import AsyncJsonWebsocketDemultiplexer
from demo.consumers import (
    EchoConsumer,
    MetricsConsumer,
    NotesConsumer,
    PricesConsumer,
    RoomConsumer,
)

# Channels routes with Django's path(), whose stubs know only views.
room_urlpatterns: list[Any] = [
    path("<slug:room>/", RoomConsumer.as_asgi()),  # type: ignore[arg-type]
    # A bare client names an application, and has no way to name a room.
    path("", RoomConsumer.as_asgi(), {"room": "lobby"}),  # type: ignore[arg-type]
]


class DemoDemultiplexer(AsyncJsonWebsocketDemultiplexer):
    """
    The demo's socket. Each name is an application; each is an ordinary consumer, or
    routes to one: the stream ``rooms/lobby/`` is ``lobby/`` to the router.
    """

    applications = {
        "echo": EchoConsumer.as_asgi(),
        "metrics": MetricsConsumer.as_asgi(),
        "notes": NotesConsumer.as_asgi(),
        "prices": PricesConsumer.as_asgi(),
        "rooms": URLRouter(room_urlpatterns),
    }

    # The other four, and eight rooms.
    max_streams = 12


websocket_urlpatterns: list[Any] = [
    path("ws/", DemoDemultiplexer.as_asgi()),  # type: ignore[arg-type]
]
