"""
What Daphne serves to tests/test_browser.py: pages under a strict
Content-Security-Policy, and the streams that they open.
"""

from __future__ import annotations

import collections
import secrets
from pathlib import Path

import django
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.sessions import SessionMiddlewareStack
from django.conf import settings
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application
from django.http import JsonResponse
from django.shortcuts import render
from django.urls import path

from channelsmultiplexer import AsyncJsonWebsocketDemultiplexer
from consumers import Text

# The page and its script.
FOLDER = Path(__file__).parent / "browser"

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    DEBUG=True,
    INSTALLED_APPS=["django.contrib.staticfiles", "channelsmultiplexer"],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
    ],
    ROOT_URLCONF=__name__,
    SECRET_KEY="known to everybody",
    # No database.
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    STATICFILES_DIRS=[FOLDER],
    STATIC_URL="/static/",
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "DIRS": [FOLDER],
        }
    ],
)

# By the name in the socket's path: sockets and streams that have opened since the
# server started.
counts = collections.defaultdict(collections.Counter)


def count(scope, what):
    """
    Count one more socket or stream.
    """
    counts[scope["url_route"]["kwargs"]["name"]][what] += 1


class Echo(Text):
    """
    Counts itself, and sends back the text or the bytes it gets.
    """

    async def connect(self):
        count(self.scope, "streams")
        await super().connect()


class Refuses(AsyncJsonWebsocketConsumer):
    """
    Refuses with a code and a reason.
    """

    async def connect(self):
        await self.close(4401, "not a member")


class Closes(AsyncJsonWebsocketConsumer):
    """
    Closes with the code and the reason it gets.
    """

    async def receive_json(self, content):
        await self.close(*content)


class Ticker(AsyncJsonWebsocketConsumer):
    """
    Counts to three, and closes.
    """

    async def connect(self):
        await self.accept()
        for number in (1, 2, 3):
            await self.send_json({"number": number})
        await self.close()


class Visitor(AsyncJsonWebsocketConsumer):
    """
    Says who the session belongs to.
    """

    async def connect(self):
        await self.accept()
        await self.send_json(self.scope["session"]["visitor"])


# As an application's own asgi.py has it, without a thought of streams.
websocket_urlpatterns = [
    path("text/", Text.as_asgi()),
    path("closes/", Closes.as_asgi()),
]


class Demultiplexer(AsyncJsonWebsocketDemultiplexer):
    """
    A socket that counts itself, with a stream of every kind.
    """

    applications = {
        "echo": Echo.as_asgi(),
        "refuses": Refuses.as_asgi(),
        "closes": Closes.as_asgi(),
        "ticker": Ticker.as_asgi(),
        "visitor": Visitor.as_asgi(),
        "": URLRouter(websocket_urlpatterns),
    }

    async def connect(self):
        count(self.scope, "sockets")


class BareDemultiplexer(AsyncJsonWebsocketDemultiplexer):
    """
    A socket as channelsmultiplexer 0.0.3 had it.
    """

    applications = {"echo": Text.as_asgi(), "closes": Closes.as_asgi()}


def page(request, sources):
    """
    Return a page whose scripts come from *sources*, and which connects to nobody
    but us.
    """
    request.session["visitor"] = "Ann"
    nonce = secrets.token_urlsafe()
    response = render(request, f"{sources}.html", {"csp_nonce": nonce})
    source = {"nonce": f"'nonce-{nonce}'", "self": "'self'"}[sources]
    response["Content-Security-Policy"] = (
        f"default-src 'none'; script-src {source}; connect-src 'self'"
    )
    return response


def report(request, name):
    """
    Return what has been counted under a name.
    """
    return JsonResponse(counts[name])


urlpatterns = [
    path("pages/<sources>/", page),
    path("reports/<name>/", report),
]

django.setup(set_prefix=False)

application = ProtocolTypeRouter(
    {
        "http": ASGIStaticFilesHandler(get_asgi_application()),
        "websocket": SessionMiddlewareStack(
            URLRouter(
                [
                    *websocket_urlpatterns,
                    path("bare/", BareDemultiplexer.as_asgi()),
                    path("ws/<name>/", Demultiplexer.as_asgi()),
                ]
            )
        ),
    }
)
