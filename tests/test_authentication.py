"""
Users and sessions, below one AuthMiddlewareStack.
"""

from __future__ import annotations

import pytest
from asgiref.sync import sync_to_async
from channels.auth import AuthMiddlewareStack
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.testing import WebsocketCommunicator
from django.contrib.auth import get_user_model
from django.test import Client

from channelsmultiplexer import AsyncJsonWebsocketDemultiplexer

pytestmark = pytest.mark.django_db(transaction=True)


class Account(AsyncJsonWebsocketConsumer):
    """
    Knows its user, and keeps a value in the session.
    """

    async def receive_json(self, content):
        session = self.scope["session"]
        before = session.get("value")
        session["value"] = content
        await sync_to_async(session.save)()
        await self.send_json([self.scope["user"].get_username(), before])


application = AuthMiddlewareStack(
    AsyncJsonWebsocketDemultiplexer.as_asgi(a=Account.as_asgi(), b=Account.as_asgi())
)


async def ask(client, stream, payload):
    """
    Return the payload of the answer to a frame.
    """
    await client.send_json_to({"stream": stream, "payload": payload})
    return (await client.receive_json_from())["payload"]


@pytest.fixture
def browser():
    """
    Log a user in, by a page.
    """
    client = Client()
    client.force_login(get_user_model().objects.create_user("ann"))
    return client


async def test_user_and_session(browser):
    """Applications see the same user, and each what another put in the session."""
    cookies = browser.cookies.output(header="", sep=";").strip().encode()
    client = WebsocketCommunicator(application, "/", headers=[(b"cookie", cookies)])
    await client.connect()
    assert await ask(client, "a", 1) == ["ann", None]
    assert await ask(client, "b", 2) == ["ann", 1]
    assert await ask(client, "a", 3) == ["ann", 2]
    await client.disconnect()


async def test_anonymous():
    """Without a session the user is anonymous, on every stream."""
    client = WebsocketCommunicator(application, "/")
    await client.connect()
    assert await ask(client, "a", 1) == ["", None]
    assert await ask(client, "b", 2) == ["", 1]
    await client.disconnect()
