"""
What the servers of tests/test_servers.py serve: demultiplexers, ordinary consumers,
and a report on the process they run in.

A client names itself in the header ``client``; what is recorded of its streams is
recorded under that name.
"""

from __future__ import annotations

import asyncio
import collections
import gc
import json
import sys
import weakref

import psutil
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.urls import path

from channelsmultiplexer import AsyncJsonWebsocketDemultiplexer

# Consumers look for a channel layer and for database connections: there are none.
settings.configure()

# How many applications of each client have had a websocket.disconnect, by their class
# and its code.
ends = collections.defaultdict(collections.Counter)

# How many bytes have reached each client's deaf applications.
heard = collections.Counter()

# Set when the deaf applications of a client shall hear.
hearing = collections.defaultdict(asyncio.Event)

# The consumers that are in memory.
consumers = weakref.WeakSet()


def client(scope):
    """
    Return what the client of a socket calls itself.
    """
    return dict(scope["headers"])[b"client"].decode()


class Recorded(AsyncWebsocketConsumer):
    """
    A consumer whose life and end are recorded.
    """

    def __init__(self):
        super().__init__()
        consumers.add(self)

    async def disconnect(self, code):
        """
        Record the end.
        """
        ends[client(self.scope)][f"{type(self).__name__} {code}"] += 1


class Echo(Recorded):
    """
    Sends every frame back as it came.
    """

    async def receive(self, text_data=None, bytes_data=None):
        """
        Send a frame back.
        """
        await self.send(text_data, bytes_data)


class Locator(Recorded):
    """
    Takes the first subprotocol it is offered, and says where it is.
    """

    async def connect(self):
        """
        Accept.
        """
        await self.accept(next(iter(self.scope["subprotocols"]), None))

    async def receive(self, text_data=None, bytes_data=None):
        """
        Answer any frame by the path and the query string.
        """
        query = self.scope["query_string"].decode()
        await self.send(json.dumps([self.scope["path"], query]))


class Refusing(Recorded):
    """
    Refuses, with no code of its own.
    """

    async def connect(self):
        """
        Refuse.
        """
        await self.close()


class Closing(Recorded):
    """
    Closes with the code that it is sent.
    """

    async def receive(self, text_data=None, bytes_data=None):
        """
        Close.
        """
        await self.close(int(text_data), "as you wish")


class Raising(Recorded):
    """
    Raises at the first frame.
    """

    async def receive(self, text_data=None, bytes_data=None):
        """
        Raise.
        """
        raise RuntimeError("raised by a frame")


class RaisingAtOnce(Recorded):
    """
    Raises before it accepts.
    """

    async def connect(self):
        """
        Raise.
        """
        raise RuntimeError("raised at once")


class Talking(Recorded):
    """
    Sends until it is disconnected, and never waits for an answer.
    """

    async def connect(self):
        """
        Start to talk.
        """
        await self.accept()
        self._talk = asyncio.create_task(self._talk_on())

    async def disconnect(self, code):
        """
        Stop talking. What the talk has raised comes out here.
        """
        await super().disconnect(code)
        self._talk.cancel()
        await asyncio.wait([self._talk])
        if not self._talk.cancelled():
            self._talk.result()

    async def _talk_on(self):
        """Send again and again."""
        while True:
            await self.send(bytes_data=bytes(2**10))
            # A pace, for Daphne, whose send never waits, would take it all.
            await asyncio.sleep(0.001)


class Deaf(Recorded):
    """
    Is given no frame until the report is told ``hear``.
    """

    async def connect(self):
        """
        Accept, and keep Channels from reading on by not returning.
        """
        await self.accept()
        await hearing[client(self.scope)].wait()

    async def receive(self, text_data=None, bytes_data=None):
        """
        Count the bytes.
        """
        heard[client(self.scope)] += len(bytes_data)


class Impatient(AsyncJsonWebsocketDemultiplexer):
    """
    Closes the socket after few bad frames.
    """

    max_invalid_frames = 3


class Overflowing(AsyncJsonWebsocketDemultiplexer):
    """
    Ends a stream whose inbox is full, where the default stops the whole socket.
    """

    overflow = "close"


async def report(scope, receive, send):
    """
    Answer every frame by what this process holds, and by what it has recorded of the
    client, when it has done what the frame says.
    """
    await receive()
    await send({"type": "websocket.accept"})
    name = client(scope)
    while (message := await receive())["type"] != "websocket.disconnect":
        match message["text"]:
            case "hear":
                hearing[name].set()
            case "mark":
                sys.stderr.write(f"mark of {name}\n")
            case "collect":
                gc.collect()
        content = {
            "tasks": len(asyncio.all_tasks()),
            "consumers": len(consumers),
            "objects": sys.getallocatedblocks(),
            "memory": psutil.Process().memory_info().rss,
            "ends": ends[name],
            "heard": heard[name],
        }
        await send({"type": "websocket.send", "text": json.dumps(content)})


def multiplexed(demultiplexer=AsyncJsonWebsocketDemultiplexer, **consumers):
    """
    Return a demultiplexer of these consumers.
    """
    streams = {name: consumer.as_asgi() for name, consumer in consumers.items()}
    return demultiplexer.as_asgi(**streams)


many = multiplexed(
    Impatient,
    one=Echo,
    two=Echo,
    locator=Locator,
    refusing=Refusing,
    closing=Closing,
    raising=Raising,
)

application = ProtocolTypeRouter(
    {
        "websocket": URLRouter(
            [
                path("report", report),
                path("", many),
                path("five", multiplexed(a=Echo, b=Echo, c=Echo, d=Echo, e=Echo)),
                path("lone-refusing", multiplexed(lone=Refusing)),
                path("lone-closing", multiplexed(lone=Closing)),
                path("lone-raising", multiplexed(lone=Raising)),
                path("lone-raising-at-once", multiplexed(lone=RaisingAtOnce)),
                path("lone-talking", multiplexed(lone=Talking)),
                path("talking", multiplexed(deaf=Deaf, talking=Talking)),
                path("waiting", multiplexed(deaf=Deaf, echo=Echo)),
                path("overflowing", multiplexed(Overflowing, deaf=Deaf, echo=Echo)),
            ]
        )
    }
)
