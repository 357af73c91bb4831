"""
The demo, one consumer at a time and as a whole.
"""

import asyncio

import pytest
from channels.auth import AuthMiddlewareStack
from channels.testing import WebsocketCommunicator
from django.contrib.staticfiles import finders
from django.core.management import call_command
from django.urls import reverse

from demo.asgi import application
from demo.consumers import (
    ChatConsumer,
    EchoConsumer,
    MetricsConsumer,
    NotesConsumer,
)
from demo.models import Note

# Of every test, since Channels looks after database connections at every event, also
# of a consumer that has none.
pytestmark = pytest.mark.django_db(transaction=True)


async def test_echo():
    """The echo stream answers a frame with itself."""
    echo = WebsocketCommunicator(EchoConsumer.as_asgi(), "/")
    await echo.connect()
    await echo.send_to(text_data="[1, 2]")
    assert await echo.receive_from() == "[1, 2]"
    await echo.disconnect()


async def test_metrics():
    """The metrics stream sends a plausible sample when its interval is over."""
    metrics = WebsocketCommunicator(MetricsConsumer.as_asgi(interval=0.01), "/")
    await metrics.connect()
    sample = await metrics.receive_json_from()
    assert 0 <= sample["cpu"] <= 100
    assert 0 < sample["memory"] <= 100
    assert sample["received"] >= 0
    assert sample["sent"] >= 0
    await metrics.disconnect()


async def test_metrics_end():
    """The metrics stream leaves no task behind when it ends."""
    metrics = WebsocketCommunicator(MetricsConsumer.as_asgi(), "/")
    await metrics.connect()
    await metrics.disconnect()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_chat():
    """The chat stream brings a message to its sender and to everybody else."""
    room = AuthMiddlewareStack(ChatConsumer.as_asgi())
    ann, bob = WebsocketCommunicator(room, "/"), WebsocketCommunicator(room, "/")
    for visitor in (ann, bob):
        await visitor.connect()
        welcome = await visitor.receive_json_from()
        assert welcome == {"event": "welcome", "user": ""}
    await ann.send_json_to({"name": "Ann", "text": "Hello"})
    for visitor in (ann, bob):
        message = await visitor.receive_json_from()
        assert message == {"event": "message", "name": "Ann", "text": "Hello"}
        await visitor.disconnect()


@pytest.mark.parametrize(
    "content",
    [
        {"name": "", "text": "Hello"},
        {"name": "A" * (ChatConsumer.NAME_LENGTH + 1), "text": "Hello"},
        {"name": "Ann", "text": ""},
        {"name": "Ann", "text": "A" * (ChatConsumer.TEXT_LENGTH + 1)},
        {"name": "Ann", "text": None},
        ["Ann", "Hello"],
    ],
)
async def test_chat_refusal(content):
    """The chat stream refuses what is not a name and a text of limited length."""
    ann = WebsocketCommunicator(AuthMiddlewareStack(ChatConsumer.as_asgi()), "/")
    await ann.connect()
    await ann.receive_json_from()
    await ann.send_json_to(content)
    assert (await ann.receive_json_from())["event"] == "refused"
    await ann.disconnect()


async def test_notes():
    """The notes stream adds and deletes a note, and announces both."""
    notes = WebsocketCommunicator(NotesConsumer.as_asgi(), "/")
    await notes.connect()
    assert await notes.receive_json_from() == {"event": "list", "notes": []}
    await notes.send_json_to({"action": "add", "text": "Milk"})
    added = await notes.receive_json_from()
    note = await Note.objects.aget()
    assert added == {"event": "added", "note": {"id": note.pk, "text": "Milk"}}
    await notes.send_json_to({"action": "delete", "id": note.pk})
    assert await notes.receive_json_from() == {"event": "deleted", "id": note.pk}
    assert not await Note.objects.aexists()
    await notes.disconnect()


async def test_notes_list():
    """The notes stream begins with all notes, the newest first."""
    first = await Note.objects.acreate(text="Milk")
    second = await Note.objects.acreate(text="Bread")
    notes = WebsocketCommunicator(NotesConsumer.as_asgi(), "/")
    await notes.connect()
    assert (await notes.receive_json_from())["notes"] == [
        {"id": second.pk, "text": "Bread"},
        {"id": first.pk, "text": "Milk"},
    ]
    await notes.disconnect()


@pytest.mark.parametrize(
    "content",
    [
        {"action": "add", "text": ""},
        {"action": "add", "text": "A" * 201},
        {"action": "add"},
        {"action": "delete", "id": "1"},
        {"action": "delete", "id": 1},
        {"action": "delete", "id": 2**70},
        None,
    ],
)
async def test_notes_refusal(content):
    """The notes stream refuses an action that cannot be carried out."""
    notes = WebsocketCommunicator(NotesConsumer.as_asgi(), "/")
    await notes.connect()
    await notes.receive_json_from()
    await notes.send_json_to(content)
    assert (await notes.receive_json_from())["event"] == "refused"
    assert not await Note.objects.aexists()
    await notes.disconnect()


async def test_notes_limit():
    """The notes stream refuses a note beyond the limit."""
    await Note.objects.abulk_create(Note(text="Milk") for _ in range(Note.LIMIT))
    notes = WebsocketCommunicator(NotesConsumer.as_asgi(), "/")
    await notes.connect()
    await notes.receive_json_from()
    await notes.send_json_to({"action": "add", "text": "Bread"})
    assert (await notes.receive_json_from())["event"] == "refused"
    assert await Note.objects.acount() == Note.LIMIT
    await notes.disconnect()


def test_page(client):
    """The page renders."""
    response = client.get(reverse("index"))
    assert response.status_code == 200
    assert "4 streams, 1 WebSocket" in response.content.decode()


@pytest.mark.parametrize("path", ["demo/demo.css", "demo/demo.js", "demo/icon.svg"])
def test_page_static_files(client, path):
    """The page refers to a static file that there is."""
    assert f'"/static/{path}"' in client.get(reverse("index")).content.decode()
    assert finders.find(path) is not None


def test_migrations():
    """The migrations are complete: makemigrations, which exits if not, returns."""
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)


@pytest.mark.parametrize(
    ("origin", "accepted"),
    [(b"http://localhost:8000", True), (b"https://example.com", False)],
)
async def test_origin(origin, accepted):
    """The socket opens for a page of this site and for no other."""
    headers = [(b"origin", origin)]
    socket = WebsocketCommunicator(application, "/ws/", headers)
    assert (await socket.connect())[0] is accepted
    await socket.disconnect()
