"""
Applications that do what a test tells them, when it does.
"""

from __future__ import annotations

import asyncio
import json

from guard import soon

__all__ = ["Puppet", "Puppets"]


class Puppet:
    """
    One run of an ASGI application: a test calls its ``receive`` and its ``send``.
    """

    def __init__(self, scope, receive, send):
        self.scope = scope
        self.send = send
        self._receive = receive
        self._end = asyncio.get_running_loop().create_future()
        self.has_ended = asyncio.Event()

    async def run(self):
        """
        Live until :meth:`finish`, or until cancelled.
        """
        try:
            await self._end
        finally:
            self.has_ended.set()

    async def accept(self, subprotocol=None):
        """
        Send ``websocket.accept``.
        """
        await self.send({"type": "websocket.accept", "subprotocol": subprotocol})

    async def send_json(self, value):
        """
        Send *value* as JSON.
        """
        await self.send({"type": "websocket.send", "text": json.dumps(value)})

    async def close(self, code=None, reason=None):
        """
        Send ``websocket.close``.
        """
        message = {"type": "websocket.close", "code": code, "reason": reason}
        await self.send(message)

    async def receive(self):
        """
        Return the next message to the application.
        """
        return await soon(self._receive())

    def finish(self, error=None):
        """
        Return from the application, or raise *error* out of it, if it is running.
        """
        if self._end.done():
            return
        if error is None:
            self._end.set_result(None)
        else:
            self._end.set_exception(error)


class Puppets:
    """
    An ASGI application that makes a puppet of each of its runs.
    """

    def __init__(self):
        # Every run there was, in the order of their starting.
        self.started = []
        self._new = asyncio.Queue()

    async def __call__(self, scope, receive, send):
        """
        Run a new puppet.
        """
        puppet = Puppet(scope, receive, send)
        self.started.append(puppet)
        self._new.put_nowait(puppet)
        await puppet.run()

    async def next(self):
        """
        Return the next run, once it has started.
        """
        return await soon(self._new.get())

    def finish(self):
        """
        Return from all runs.
        """
        for puppet in self.started:
            puppet.finish()
