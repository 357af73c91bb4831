"""
What Daphne serves to tests/test_debug_browser.py: the debug page, under a strict
Content-Security-Policy, to a visitor who is staff.
"""

from __future__ import annotations

import secrets

import django
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application
from django.urls import include, path

from channelsmultiplexer import AsyncJsonWebsocketDemultiplexer
from consumers import Closes, Echo, NeverAccepts, Refuses, Text

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    DEBUG=True,
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.staticfiles",
        "channelsmultiplexer",
    ],
    MIDDLEWARE=[f"{__name__}.staff"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="known to everybody",
    STATIC_URL="/static/",
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
        }
    ],
    USE_TZ=True,
)

django.setup(set_prefix=False)

# Below setup(), which loads the models.
from django.contrib.auth.models import User  # noqa: E402


def staff(get_response):
    """
    Make every visitor one of the staff, and trust scripts and styles by a nonce, or
    if the URL says so by their origin.
    """

    def middleware(request):
        request.user = User(username="ann", is_staff=True)
        source = "'self'"
        if "self" not in request.GET:
            # As django-csp has it.
            request.csp_nonce = secrets.token_urlsafe()
            source = f"'nonce-{request.csp_nonce}'"
        response = get_response(request)
        response["Content-Security-Policy"] = (
            f"default-src 'none'; script-src {source}; style-src {source}; "
            "connect-src 'self'"
        )
        return response

    return middleware


class ChatDemultiplexer(AsyncJsonWebsocketDemultiplexer):
    """
    Has a stream of every kind.
    """

    applications = {
        "closes": Closes.as_asgi(),
        "echo": Echo.as_asgi(),
        "refuses": Refuses.as_asgi(),
        "text": Text.as_asgi(),
        "undecided": NeverAccepts.as_asgi(),
    }


urlpatterns = [path("multiplexer/", include("channelsmultiplexer.urls"))]

application = ProtocolTypeRouter(
    {
        "http": ASGIStaticFilesHandler(get_asgi_application()),
        "websocket": URLRouter(
            [
                path("ws/", ChatDemultiplexer.as_asgi()),
                path("ws/<path:anything>", ChatDemultiplexer.as_asgi()),
            ]
        ),
    }
)
