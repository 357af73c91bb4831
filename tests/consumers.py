"""
Applications for streams: ordinary Channels consumers, each with one trait.
"""

from __future__ import annotations

import asyncio

from channels.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
)

__all__ = [
    "Closes",
    "Echo",
    "Hangs",
    "NeverAccepts",
    "Raises",
    "Refuses",
    "Returns",
    "SyncEcho",
    "Text",
    "refuses",
]


class Echo(AsyncJsonWebsocketConsumer):
    """
    Sends back the JSON it gets.
    """

    async def receive_json(self, content):
        await self.send_json(content)


class SyncEcho(JsonWebsocketConsumer):
    """
    Sends back the JSON it gets, from a thread.
    """

    def receive_json(self, content):
        self.send_json(content)


class Text(AsyncWebsocketConsumer):
    """
    Sends back the text or the bytes it gets.
    """

    async def receive(self, text_data=None, bytes_data=None):
        await self.send(text_data, bytes_data)


class Closes(AsyncWebsocketConsumer):
    """
    Closes with the code it gets.
    """

    async def receive(self, text_data=None, bytes_data=None):
        await self.close(int(text_data), "as you wish")


class Raises(AsyncWebsocketConsumer):
    """
    Raises at its first frame.
    """

    async def receive(self, text_data=None, bytes_data=None):
        raise LookupError("of this application")


class Refuses(AsyncWebsocketConsumer):
    """
    Refuses with 4403.
    """

    async def connect(self):
        await self.close(4403)


class NeverAccepts(AsyncWebsocketConsumer):
    """
    Neither accepts nor refuses.
    """

    async def connect(self):
        pass


class Hangs(AsyncWebsocketConsumer):
    """
    Never gets done with its disconnect.
    """

    async def disconnect(self, code):
        await asyncio.Event().wait()


async def refuses(scope, receive, send, code=None):
    """
    Refuse, as the smallest application can.
    """
    await receive()
    await send({"type": "websocket.close", **({"code": code} if code else {})})
    await receive()


async def Returns(scope, receive, send):  # noqa: N802 (a consumer like the others)
    """
    Accept, and return at the first frame.
    """
    await receive()
    await send({"type": "websocket.accept"})
    await receive()
