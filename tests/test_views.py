"""
The debug page: who may see it, and what it shows. test_debug_browser.py has the
console.
"""

from __future__ import annotations

import pytest
from asgiref.sync import sync_to_async
from django.contrib.admin import AdminSite
from django.contrib.auth.models import AnonymousUser, User
from django.urls import include, path

from channelsmultiplexer import AsyncJsonWebsocketDemultiplexer, views
from channelsmultiplexer.testing import MultiplexCommunicator
from consumers import Echo, NeverAccepts

site = AdminSite()

urlpatterns = [
    path("admin/", site.urls),
    path("multiplexer/", include("channelsmultiplexer.urls")),
]

pytestmark = pytest.mark.urls(__name__)


class Demultiplexer(AsyncJsonWebsocketDemultiplexer):
    applications = {"echo": Echo.as_asgi(), "undecided": NeverAccepts.as_asgi()}


def get(rf, view=views.debug, user=None, **query):
    """
    Return a view's response to one of the staff, or to somebody else.
    """
    request = rf.get("/", query)
    request.user = user or User(username="staff", is_staff=True)
    return view(request)


async def content(rf, **query):
    """
    Return the page, which a server renders in a thread.
    """
    response = await sync_to_async(get)(rf, **query)
    return response.content.decode()


@pytest.mark.parametrize(
    "user",
    [
        AnonymousUser(),
        User(username="visitor"),
        User(username="former", is_staff=True, is_active=False),
    ],
    ids=["anonymous", "not staff", "not active"],
)
def test_not_staff(rf, settings, user):
    """Who isn't staff gets what the admin would give them: a way to log in."""
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "django.contrib.admin"]
    response = get(rf, user=user)
    expected = get(rf, site.admin_view(site.index), user)
    assert response.status_code == expected.status_code == 302
    assert response["Location"] == expected["Location"] == "/admin/login/?next=/"


def test_caches(rf):
    """The page is kept by no cache."""
    assert "no-store" in get(rf)["Cache-Control"]


def test_method(rf):
    """The page is there to be read."""
    assert views.debug(rf.post("/")).status_code == 405


async def test_empty(rf):
    """The page says when nobody is connected."""
    assert "Nobody is connected to this process." in await content(rf)


async def test_lists(rf):
    """The page lists sockets and streams, with user, state and figures."""
    application = Demultiplexer()
    async with MultiplexCommunicator(application, "/ws/", user="Ann") as client:
        echo = await client.open("echo/42/?token=secret")
        await echo.send_json("x" * 98)
        await echo.receive_json()
        client.open_nowait("undecided")
        await client.stream("2").send_json("it waits")
        await client.send_frame({"op": "ping"})
        assert [await client.receive_frame() for _ in range(2)][1] == {"op": "pong"}
        page = await content(rf)
    for text in ("<h3>/ws/</h3>", "Ann,", "echo/42/", "connecting", "100\xa0bytes"):
        assert text in page
    assert "secret" not in page


async def test_escapes(rf):
    """What a client wrote stands on the page as text."""
    evil = "\"><script>alert('&')</script>"
    application = Demultiplexer(**{"": Echo})
    async with MultiplexCommunicator(
        application, scope={"path": "//elsewhere/" + evil}, user=evil
    ) as client:
        await client.open(evil)
        page = await content(rf)
    assert "<script>alert" not in page
    # Nor does the console propose another host.
    assert 'value="/elsewhere/' in page
    assert 'value="//' not in page


async def test_pages(rf, monkeypatch):
    """Many sockets are shown on several pages, the newest first."""
    monkeypatch.setattr(views, "PAGE_SIZE", 1)
    application = Demultiplexer.as_asgi()
    async with (
        MultiplexCommunicator(application, "/old/"),
        MultiplexCommunicator(application, "/new/"),
    ):
        first, second = await content(rf), await content(rf, page="2")
    assert "<h3>/new/</h3>" in first
    assert "<h3>/old/</h3>" not in first
    assert "<h3>/old/</h3>" in second
