"""
Where an ASGI application leads: through routers and middleware, to consumers.

It only looks. Nothing that it finds is called, and no consumer is made, so what a
demultiplexer adds in an ``__init__`` of its own is not seen.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from channels.consumer import AsyncConsumer
from channels.routing import ProtocolTypeRouter, URLRouter

from .demultiplexer import AsyncJsonWebsocketDemultiplexer

__all__ = [
    "Route",
    "applications",
    "demultiplexer",
    "demultiplexers",
    "name",
    "streams",
    "walk",
]

# What middleware calls the application within: Channels', Channels' OriginValidator
# and Django's handlers, Starlette's.
INNER = ("inner", "application", "app")


@dataclass(frozen=True, slots=True)
class Route:
    """
    A way to an application.

    Attributes:
        path: What a URL's path has to look like, as the routes write it, with no
            slash before it. :obj:`None` if no router is on the way: then any path
            leads there.

        application: What is at the end.

        through: The routers and the middleware on the way, the outermost first.
    """

    path: str | None
    application: Any
    through: tuple[Any, ...]

    @property
    def consumer(self) -> type[AsyncConsumer] | None:
        """
        The class of the consumer at the end, if it is one.
        """
        return _consumer(self.application)


def walk(application: Any) -> Iterator[Route]:
    """
    Find the ways that a WebSocket can take from an application.

    Routers are those of Channels. Middleware is what has the next application in an
    attribute. A function is looked through where that leads to a consumer: what it
    has closed over, and the globals it uses. The rest is an end.
    """
    return _walk(application, None, (), set())


def demultiplexers(application: Any) -> Iterator[Route]:
    """
    Find the ways from an application to demultiplexers.
    """
    for route in walk(application):
        if issubclass(route.consumer or object, AsyncJsonWebsocketDemultiplexer):
            yield route


def demultiplexer(
    route: Route,
) -> AsyncJsonWebsocketDemultiplexer | type[AsyncJsonWebsocketDemultiplexer]:
    """
    Return what has the options of the demultiplexer at the end of a route: the
    instance that is mounted there, or else the class.
    """
    is_instance = isinstance(route.application, AsyncJsonWebsocketDemultiplexer)
    found: Any = route.application if is_instance else route.consumer
    assert found is not None, "only demultiplexers' routes come here"
    return cast(AsyncJsonWebsocketDemultiplexer, found)


def applications(route: Route) -> Mapping[Any, Any]:
    """
    Return the applications, by name, of the demultiplexer at the end of a route.

    Names and applications are as they were given, which may be wrong.
    """
    consumer: Any = route.consumer
    own: Any = demultiplexer(route).applications
    if not isinstance(own, Mapping):
        own = {}
    given = _attributes(route.application).get("consumer_initkwargs", {})
    # What an __init__ has a parameter for, it doesn't pass on.
    options = {
        parameter.name
        for parameter in inspect.signature(consumer.__init__).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    return {**own, **{key: given[key] for key in given if key not in options}}


def streams(route: Route) -> Iterator[Route]:
    """
    Find the ways on from the demultiplexer at the end of a route.

    The path of each is what a client of the v1 dialect opens, but for
    percent-encoding: the application's name, and what its own routers add to that.
    """
    for key, application in applications(route).items():
        for way in walk(application):
            if way.path is None:
                path = str(key)
            else:
                path = f"{key}/{way.path}" if key else way.path
            yield Route(path, way.application, way.through)


def name(application: Any) -> str:
    """
    Return what an application is called in the source: its module and its class or
    function. What is no application is shown as it is.
    """
    if not callable(application):
        return repr(application)
    while isinstance(application, functools.partial):
        application = application.func
    # as_asgi() gives its function the name of the consumer.
    if not hasattr(application, "__qualname__"):
        application = type(application)
    return f"{application.__module__}.{application.__qualname__}"


def _walk(
    application: Any,
    path: str | None,
    through: tuple[Any, ...],
    seen: set[tuple[int, str | None]],
) -> Iterator[Route]:
    # Functions lead to functions, by many ways to the same and in circles.
    if (id(application), path) in seen:
        return
    seen.add((id(application), path))
    beyond = (*through, application)
    if isinstance(application, ProtocolTypeRouter):
        inner = application.application_mapping.get("websocket")
        if inner is not None:
            yield from _walk(inner, path, beyond, seen)
    elif isinstance(application, URLRouter):
        routes: list[Any] = application.routes
        for route in routes:
            # As ResolverMatch.route joins nested routes.
            part = str(route.pattern).removeprefix("^")
            yield from _walk(route.callback, (path or "") + part, beyond, seen)
    elif _is_end(application):
        yield Route(path, application, through)
    elif (inner := _inner(application)) is not None:
        yield from _walk(inner, path, beyond, seen)
    else:
        guesses = [
            route
            for guess in _held(application)
            for route in _walk(guess, path, beyond, seen)
            if route.consumer is not None
        ]
        yield from guesses or [Route(path, application, through)]


def _consumer(application: Any) -> type[AsyncConsumer] | None:
    """Return the class of a consumer, however it stands for an application."""
    found: Any = application
    if not inspect.isclass(application):
        found = _attributes(application).get("consumer_class", type(application))
    is_consumer = inspect.isclass(found) and issubclass(found, AsyncConsumer)
    return found if is_consumer else None


def _is_end(application: Any) -> bool:
    return (
        not callable(application)
        or inspect.isclass(application)
        or _consumer(application) is not None
    )


def _inner(application: Any) -> Any:
    """Return the application within middleware, if it is where it usually is."""
    held = map(_attributes(application).get, INNER)
    return next(filter(callable, held), None)


def _held(application: Any) -> list[Any]:
    """Return what a callable may call that may be an application."""
    held: list[Any]
    if isinstance(application, functools.partial):
        held = [*application.args, *application.keywords.values(), application.func]
    elif inspect.ismethod(application):
        held = [application.__self__]
    elif inspect.isfunction(application):
        try:
            variables = inspect.getclosurevars(application)
        except ValueError:
            # It has closed over what isn't there yet.
            return []
        held = [*variables.nonlocals.values(), *variables.globals.values()]
    else:
        held = list(_attributes(application).values())
    # A class may be there for isinstance(), a plain function for anything: they are
    # followed where they are routed to, but not on a guess.
    return [
        one
        for one in held
        if callable(one)
        and not inspect.isclass(one)
        and (not inspect.isfunction(one) or inspect.iscoroutinefunction(one))
    ]


def _attributes(application: Any) -> Mapping[str, Any]:
    """Return an object's own attributes. Others may be properties, which run code."""
    return getattr(application, "__dict__", {})
