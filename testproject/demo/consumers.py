"""
The demo's streams: five Channels consumers.

None of them knows that it shares a socket. Each would serve a WebSocket of its own
just as well.
"""

import asyncio
import contextlib
import dataclasses
import os
from typing import Any

from asgiref.sync import async_to_sync
from channels.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
)
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db.models import BigIntegerField

from channelsmultiplexer.pubsub import RedisListener, RedisUnavailable
from demo.metrics import Meter
from demo.models import Note


class EchoConsumer(AsyncWebsocketConsumer):
    """
    Sends every frame back as it came.
    """

    async def receive(
        self, text_data: str | None = None, bytes_data: bytes | None = None
    ) -> None:
        """
        Answer a frame with itself.
        """
        await self.send(text_data=text_data, bytes_data=bytes_data)


class MetricsConsumer(AsyncJsonWebsocketConsumer):
    """
    Sends a sample of this machine's metrics again and again, and takes no orders.

    With each sample comes the id of the process that serves the client, which is one
    of several perhaps.

    Args:
        interval: Seconds from one sample to the next.
    """

    def __init__(self, interval: float = 1.0) -> None:
        super().__init__()
        self._interval = interval
        # Runs from connect() to disconnect().
        self._sampling: asyncio.Task[None]

    async def connect(self) -> None:
        """
        Start sampling.
        """
        await self.accept()
        # A task, because the consumer gets no further event, not even the
        # disconnect, until connect() has returned.
        self._sampling = asyncio.create_task(self._send_samples())

    async def disconnect(self, code: int) -> None:
        """
        Stop sampling. An error that ended the sampling before comes out here.
        """
        self._sampling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._sampling

    async def _send_samples(self) -> None:
        """Send a sample at every interval until cancelled."""
        meter = Meter()
        while True:
            await asyncio.sleep(self._interval)
            sample = dataclasses.asdict(meter.sample())
            await self.send_json({"process": os.getpid(), **sample})


class RoomConsumer(AsyncJsonWebsocketConsumer):
    """
    A chat room. The path names it; what was said before you came is not kept.

    Refuses with 4403 and a reason. Else the client is sent ``welcome`` with its user
    name once (empty for an anonymous visitor). It sends ``{"name", "text"}``, and is
    sent ``message`` with name and text for every message, its own included, or
    ``refused`` with a reason.
    """

    ROOM_LENGTH = 32
    NAME_LENGTH = 24
    TEXT_LENGTH = 500

    async def connect(self) -> None:
        """
        Enter the room, and tell the client who it is to this site.
        """
        room = self.scope["url_route"]["kwargs"]["room"]
        user = self.scope["user"]
        assert user is not None, "AuthMiddlewareStack sets a user, if an anonymous one"
        # Refusing a WebSocket of its own, this would be an HTTP 403 without a word.
        if len(room) > self.ROOM_LENGTH:
            reason = f"The name of a room has at most {self.ROOM_LENGTH} characters."
            return await self.close(4403, reason)
        if room == "staff" and not user.is_staff:
            return await self.close(4403, "This room is for staff.")
        self._group = f"room.{room}"
        # A group in this list is left by itself at the end.
        self.groups.append(self._group)
        await self.channel_layer.group_add(self._group, self.channel_name)
        await self.accept()
        await self.send_json({"event": "welcome", "user": user.get_username()})

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        """
        Pass a message on to everybody in the room, or refuse it to its sender.
        """
        match content:
            case {"name": str(name), "text": str(text)} if (
                0 < len(name) <= self.NAME_LENGTH and 0 < len(text) <= self.TEXT_LENGTH
            ):
                await self.channel_layer.group_send(
                    self._group, {"type": "room.message", "name": name, "text": text}
                )
            case _:
                reason = (
                    f"A message needs a name of at most {self.NAME_LENGTH} characters"
                    f" and a text of at most {self.TEXT_LENGTH}."
                )
                await self.send_json({"event": "refused", "reason": reason})

    async def room_message(self, event: dict[str, Any]) -> None:
        """
        Send a message of the room to the client.
        """
        await self.send_json(
            {"event": "message", "name": event["name"], "text": event["text"]}
        )


class NotesConsumer(JsonWebsocketConsumer):
    """
    A list that all visitors share, kept in the database by ordinary, synchronous code.

    The client sends ``{"action": "add", "text"}`` or ``{"action": "delete", "id"}``;
    it is sent ``list`` with all notes once, the newest first, then ``added`` and
    ``deleted`` whoever made the change, or ``refused`` with a reason. A note that was
    added during connect() comes in both.
    """

    groups = ["notes"]

    def connect(self) -> None:
        """
        Send all notes there are.
        """
        self.accept()
        notes = list(Note.objects.values("id", "text"))
        self.send_json({"event": "list", "notes": notes})

    def receive_json(self, content: Any, **kwargs: Any) -> None:
        """
        Carry out an action, or tell its sender why not.
        """
        match content:
            case {"action": "add", "text": str(text)}:
                self._add(text)
            # Django 4.2 lets a number reach SQLite that is too large for it.
            case {"action": "delete", "id": int(pk)} if (
                0 < pk <= BigIntegerField.MAX_BIGINT
            ):
                self._delete(pk)
            case _:
                self._refuse("Expected an action: add with a text, delete with an id.")

    def notes_changed(self, event: dict[str, Any]) -> None:
        """
        Send a change, made by anybody, to the client.
        """
        self.send_json(event["change"])

    def _add(self, text: str) -> None:
        """Store a note and announce it."""
        note = Note(text=text)
        try:
            note.full_clean()
        except ValidationError as error:
            self._refuse(" ".join(error.messages))
            return
        note.save()
        self._announce({"event": "added", "note": {"id": note.pk, "text": note.text}})

    def _delete(self, pk: int) -> None:
        """Delete a note and announce it."""
        deleted, _ = Note.objects.filter(pk=pk).delete()
        if deleted:
            self._announce({"event": "deleted", "id": pk})
        else:
            self._refuse("There is no such note any more.")

    def _announce(self, change: dict[str, Any]) -> None:
        """Tell everybody, this consumer included."""
        async_to_sync(self.channel_layer.group_send)(
            "notes", {"type": "notes.changed", "change": change}
        )

    def _refuse(self, reason: str) -> None:
        """Tell the sender alone."""
        self.send_json({"event": "refused", "reason": reason})


class PricesConsumer(RedisListener, AsyncJsonWebsocketConsumer):
    """
    Passes on the prices that other programs publish in Redis.

    What is published to ``prices.tea`` is sent as ``price`` with the name ``tea`` and
    a price: the text as it was published. A server without Redis sends ``unavailable``
    with a reason, and nothing more.
    """

    redis_url = settings.REDIS_URL or RedisListener.redis_url

    PREFIX = "prices."

    async def connect(self) -> None:
        """
        Listen, or tell the client why not.
        """
        if settings.REDIS_URL:
            # Before accept(), so that a client that is in misses nothing.
            try:
                await self.listen(f"{self.PREFIX}*")
            except RedisUnavailable:
                # "Try again later", which the browser module does.
                return await self.close(1013, "Redis doesn't answer.")
        await self.accept()
        if not settings.REDIS_URL:
            reason = (
                "Prices come through Redis, and this server has none. Start one, then"
                " the demo with REDIS_URL: testproject/README.rst has the commands."
            )
            await self.send_json({"event": "unavailable", "reason": reason})

    async def redis_message(self, event: dict[str, Any]) -> None:
        """
        Send a price to the client.
        """
        name = event["channel"].decode().removeprefix(self.PREFIX)
        price = event["data"].decode()
        await self.send_json({"event": "price", "name": name, "price": price})
