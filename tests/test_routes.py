"""
Ways through an ASGI application.
"""

from __future__ import annotations

import functools

import pytest
from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator, OriginValidator
from channels.sessions import CookieMiddleware
from django.urls import path, re_path

from channelsmultiplexer import AsyncJsonWebsocketDemultiplexer, routes
from consumers import Echo, Text

ECHO = Echo.as_asgi()


class Demultiplexer(AsyncJsonWebsocketDemultiplexer):
    applications = {"echo": ECHO}


def paths(application):
    """
    Return the paths that lead to consumers, with the consumers' names.
    """
    ways = routes.walk(application)
    return [(way.path, way.consumer and way.consumer.__name__) for way in ways]


def streams(application):
    """
    Return the streams of the one demultiplexer, with the names of applications.
    """
    (way,) = routes.demultiplexers(application)
    found = routes.streams(way)
    return [(way.path, routes.name(way.application)) for way in found]


def test_consumer():
    """A consumer without a router is found at any path."""
    assert paths(ECHO) == [(None, "Echo")]


def test_protocols():
    """Of the protocols only WebSocket is followed."""
    router = ProtocolTypeRouter({"http": Text.as_asgi(), "websocket": ECHO})
    assert paths(router) == [(None, "Echo")]
    assert paths(ProtocolTypeRouter({"http": Text.as_asgi()})) == []


def test_nested_routers():
    """The path of a nested router follows that of the one around it."""
    inner = URLRouter([path("<int:number>/", ECHO), re_path(r"^(?P<word>\w+)$", ECHO)])
    router = URLRouter([path("ws/", inner), re_path("^other/", inner), path("", ECHO)])
    assert [found for found, _ in paths(router)] == [
        "ws/<int:number>/",
        r"ws/(?P<word>\w+)$",
        "other/<int:number>/",
        r"other/(?P<word>\w+)$",
        "",
    ]


def test_middleware():
    """A route knows the middleware on its way, the outermost first."""
    application = AllowedHostsOriginValidator(AuthMiddlewareStack(ECHO))
    (way,) = routes.walk(application)
    assert way.application is ECHO
    assert [type(one) for one in way.through[:2]] == [OriginValidator, CookieMiddleware]


def test_middleware_between_routers():
    """Middleware between two routers leaves the path as it is."""
    inner = AuthMiddlewareStack(URLRouter([path("echo/", ECHO)]))
    assert paths(URLRouter([path("ws/", inner)])) == [("ws/echo/", "Echo")]


async def plain(scope, receive, send):
    """
    Serve, but by no consumer.
    """
    await twice(send)


async def twice(send):
    """
    Do something for :func:`plain`, which does as much for this in turn.
    """
    await plain({}, None, send)


async def dispatch(scope, receive, send):
    """
    Serve by an application of the module.
    """
    await (ECHO if scope["type"] == "websocket" else plain)(scope, receive, send)


def closure(application):
    """
    Wrap an application in a function.
    """

    async def serve(scope, receive, send):
        await application(scope, receive, send)

    return serve


class Wrapper:
    """
    Wraps an application, under a name that no other middleware uses.
    """

    def __init__(self, application):
        self.wrapped = application

    @property
    def inner(self):
        raise AssertionError("a property was looked up")

    async def __call__(self, scope, receive, send):
        await self.wrapped(scope, receive, send)


@pytest.mark.parametrize(
    "application",
    [
        closure(ECHO),
        closure(closure(AuthMiddlewareStack(ECHO))),
        functools.partial(lambda application, *args: application(*args), ECHO),
        functools.partial(closure, application=ECHO),
        Wrapper(ECHO),
        Wrapper(ECHO).__call__,
        Wrapper(closure(ECHO)),
        dispatch,
    ],
)
def test_guesses(application):
    """A consumer is found behind functions, partials and foreign middleware."""
    assert paths(application) == [(None, "Echo")]


@pytest.mark.parametrize(
    "application", [plain, closure(plain), Wrapper(plain), functools.partial(plain)]
)
def test_ends(application):
    """What leads to no consumer is an end itself."""
    (way,) = routes.walk(application)
    assert (way.application, way.consumer) == (application, None)


def test_plain_function_behind_middleware():
    """Behind Channels' middleware a function is found, too."""
    (way,) = routes.walk(AuthMiddlewareStack(plain))
    assert way.application is plain


def test_unset_variable():
    """A function is an end while what it has closed over isn't there."""

    async def serve(*args):
        await later(*args)

    assert paths(serve) == [(None, None)]
    later = ECHO
    assert paths(serve) == [(None, "Echo")]


@pytest.mark.parametrize(
    "application",
    [
        Demultiplexer,
        Demultiplexer(),
        Demultiplexer.as_asgi(),
        Demultiplexer().as_asgi(),
        AsyncJsonWebsocketDemultiplexer(echo=ECHO),
        AsyncJsonWebsocketDemultiplexer.as_asgi(echo=ECHO),
        AsyncJsonWebsocketDemultiplexer(echo=ECHO).as_asgi(),
    ],
)
def test_demultiplexer(application):
    """A demultiplexer is found in each form that it is mounted in."""
    assert streams(application) == [("echo", "consumers.Echo")]


def test_own_parameters():
    """What an overridden __init__ has a parameter for is no application."""

    class Configured(Demultiplexer):
        def __init__(self, limit, *, key=None, **applications):
            raise AssertionError("a consumer was made")

    application = Configured.as_asgi(limit=3, key="k", text=Text.as_asgi())
    names = [("echo", "consumers.Echo"), ("text", "consumers.Text")]
    assert streams(application) == names


def test_streams():
    """A stream's path is the application's name, and what its routers add."""
    rooms = URLRouter([path("<slug:room>/", ECHO), path("", ECHO)])
    applications = {"rooms": closure(rooms), "text": AuthMiddlewareStack(ECHO)}
    found = streams(AsyncJsonWebsocketDemultiplexer.as_asgi(**applications))
    assert [stream for stream, _ in found] == ["rooms/<slug:room>/", "rooms/", "text"]


@pytest.mark.parametrize(
    ("application", "stream"),
    [(URLRouter([path("ws/echo/", ECHO)]), "ws/echo/"), (ECHO, "")],
)
def test_unnamed_application(application, stream):
    """The application named "" has its routers' paths, whole."""
    mux = AsyncJsonWebsocketDemultiplexer.as_asgi(**{"": application})
    assert streams(mux) == [(stream, "consumers.Echo")]


@pytest.mark.parametrize(
    ("application", "name"),
    [
        (ECHO, "consumers.Echo"),
        (Echo, "consumers.Echo"),
        (Echo(), "consumers.Echo"),
        (functools.partial(functools.partial(ECHO)), "consumers.Echo"),
        (plain, f"{__name__}.plain"),
        (closure(plain), f"{__name__}.closure.<locals>.serve"),
        ("consumers.Echo", "'consumers.Echo'"),
    ],
)
def test_name(application, name):
    """An application is called by its module and its class or function."""
    assert routes.name(application) == name
