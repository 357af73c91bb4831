"""
System checks: what is wrong with a project's demultiplexers before a client tells.

``manage.py check --tag channelsmultiplexer`` runs these alone. They are, each with
``channelsmultiplexer.`` before it:

* ``E001``: ``ASGI_APPLICATION`` cannot be imported, or is no application.
* ``E002``: It cannot be imported because an extra of this package is not installed.
* ``E003``: ``applications`` is no mapping.
* ``E004``: What is no ASGI application stands where one should.
* ``E005``: A name is no string, or too long.
* ``E006``: A router or middleware leads all clients to one instance of a consumer.
* ``W001``: ``ASGI_APPLICATION`` is not set.
* ``W002``: An application is an instance of a consumer, which is copied.
* ``W003``: ``application_close_timeout`` is not below Daphne's.
* ``W004``: A demultiplexer takes WebSockets of any origin (with ``--deploy``).
"""

from __future__ import annotations

import importlib.util
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

from channels.consumer import AsyncConsumer
from channels.security.websocket import OriginValidator
from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Error
from django.utils.module_loading import import_string

from . import envelope, routes
from .demultiplexer import AsyncJsonWebsocketDemultiplexer
from .routes import Route

__all__ = ["check_applications", "check_origins", "register_checks"]

TAG = "channelsmultiplexer"

# Seconds: the default of --application-close-timeout, which runserver doesn't have.
DAPHNE_CLOSE_TIMEOUT = 10

# What modules of this package import that not every installation has, and the extra
# that brings it.
EXTRAS = {"hiredis": "redis", "redis": "redis", "websockets": "client"}


def register_checks() -> None:
    """
    Have Django run the checks; the second with ``check --deploy`` only.
    """
    checks.register(check_applications, TAG)
    checks.register(check_origins, TAG, checks.Tags.security, deploy=True)


def check_applications(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """
    Check ``ASGI_APPLICATION``, and the demultiplexers that it leads to.
    """
    application, messages = _load()
    for route in routes.demultiplexers(application):
        # One demultiplexer may be mounted at many paths.
        messages += [m for m in _check_demultiplexer(route) if m not in messages]
    return messages


def check_origins(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """
    Check that no demultiplexer can be reached from the pages of other sites.

    Browsers send cookies along with a WebSocket to any site, and leave it to the
    server to look at the ``Origin``.
    """
    application, _ = _load()
    return [
        checks.Warning(
            f"{_place(route)} takes WebSockets from the pages of any site, with the "
            "cookies of whoever looks at them.",
            hint="Wrap it in channels.security.websocket.AllowedHostsOriginValidator, "
            "and let ALLOWED_HOSTS name the hosts.",
            obj=route.consumer,
            id=f"{TAG}.W004",
        )
        for route in routes.demultiplexers(application)
        if not any(map(_validates, route.through))
    ]


def _load() -> tuple[Any, list[CheckMessage]]:
    """Return the project's application, and what is wrong with that."""
    path = getattr(settings, "ASGI_APPLICATION", None)
    if not path:
        return None, [
            checks.Warning(
                "ASGI_APPLICATION is not set, so no demultiplexer can be checked.",
                hint="Set it to the application that your server runs, for example "
                "'mysite.asgi.application'.",
                obj="ASGI_APPLICATION",
                id=f"{TAG}.W001",
            )
        ]
    try:
        application = import_string(path)
    # The module is the project's own, and may raise anything.
    except Exception as error:
        return None, [_import_failed(path, error)]
    if not callable(application):
        return None, [
            Error(
                f"{path!r} is no ASGI application: its type is "
                f"{type(application).__name__}.",
                hint="Name what your server runs, for example "
                "'mysite.asgi.application'.",
                obj="ASGI_APPLICATION",
                id=f"{TAG}.E001",
            )
        ]
    return application, []


def _import_failed(path: str, error: Exception) -> CheckMessage:
    if isinstance(error, ImportError):
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        importer = frame.f_globals["__name__"]
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is not None and importer.startswith(f"{__package__}."):
            return Error(
                f"{path!r} cannot be imported: {importer} needs {error.name}, which "
                "is not installed.",
                hint=f'Run: pip install "{__package__}[{extra}]"',
                obj="ASGI_APPLICATION",
                id=f"{TAG}.E002",
            )
    return Error(
        f"{path!r} cannot be imported: {type(error).__name__}: {error}",
        hint="Name what your server runs, for example 'mysite.asgi.application'. To "
        "see the traceback of an error in there, run: manage.py shell -c "
        f'"import {str(path).rpartition(".")[0]}"',
        obj="ASGI_APPLICATION",
        id=f"{TAG}.E001",
    )


def _check_demultiplexer(route: Route) -> Iterator[CheckMessage]:
    consumer: Any = route.consumer
    if route.application is consumer:
        yield Error(
            f"{_place(route)} is a class, and no ASGI application.",
            hint=f"Route to {consumer.__name__}.as_asgi().",
            obj=consumer,
            id=f"{TAG}.E004",
        )
    named: Any = routes.demultiplexer(route).applications
    if not isinstance(named, Mapping):
        yield Error(
            f"applications is no mapping: its type is {type(named).__name__}.",
            hint='Make it a dict: {"chat": ChatConsumer.as_asgi()}.',
            obj=consumer,
            id=f"{TAG}.E003",
        )
    for name in routes.applications(route):
        yield from _check_name(name, consumer)
    for stream in routes.streams(route):
        yield from _check_stream(stream, consumer)
    yield from _check_timeout(route)


def _check_name(name: Any, consumer: Any) -> Iterator[CheckMessage]:
    limit = envelope.MAX_STREAM_BYTES
    if not isinstance(name, str) or len(name.encode(errors="replace")) > limit:
        yield Error(
            f"A stream's name has to be a string of at most {limit} bytes in UTF-8, "
            f"and {name!r} is not.",
            hint="Change the name in applications; frames carry it.",
            obj=consumer,
            id=f"{TAG}.E005",
        )


def _check_stream(stream: Route, consumer: Any) -> Iterator[CheckMessage]:
    """Check one application, which is *consumer*'s behind a stream."""
    application = stream.application
    # The demultiplexer takes a class; routers and middleware don't.
    is_class = isinstance(application, type) and bool(stream.through)
    if not callable(application) or is_class:
        yield Error(
            f"Stream {stream.path!r} leads to no ASGI application, but to "
            f"{application!r}.",
            hint=f"Put {application.__name__}.as_asgi() in its place."
            if is_class
            else "Applications are what a consumer's as_asgi() returns, a URLRouter, "
            "or an async function of scope, receive and send.",
            obj=consumer,
            id=f"{TAG}.E004",
        )
    # A demultiplexer keeps nothing of a socket on itself.
    elif isinstance(application, AsyncConsumer) and not isinstance(
        application, AsyncJsonWebsocketDemultiplexer
    ):
        kind = type(application).__name__
        hint = f"Put {kind}.as_asgi() in its place, which makes one for each client."
        if stream.through:
            yield Error(
                f"All clients share the one {kind} of stream {stream.path!r}, and get "
                "one another's data.",
                hint=hint,
                obj=consumer,
                id=f"{TAG}.E006",
            )
        else:
            yield checks.Warning(
                f"Stream {stream.path!r} leads to an instance of {kind}, of which each "
                "client gets a copy. Copies share the objects that it holds.",
                hint=hint,
                obj=consumer,
                id=f"{TAG}.W002",
            )


def _check_timeout(route: Route) -> Iterator[CheckMessage]:
    seconds = routes.demultiplexer(route).application_close_timeout
    # Not imported: that would install Twisted's reactor.
    has_daphne = importlib.util.find_spec("daphne") is not None
    if has_daphne and seconds >= DAPHNE_CLOSE_TIMEOUT:
        yield checks.Warning(
            f"application_close_timeout is {seconds} seconds, but Daphne cancels a "
            f"socket, and all its streams, {DAPHNE_CLOSE_TIMEOUT} seconds after its "
            "end.",
            hint=f"Set it below {DAPHNE_CLOSE_TIMEOUT}. If Daphne runs with a greater "
            "--application-close-timeout, or another server does, silence this.",
            obj=route.consumer,
            id=f"{TAG}.W003",
        )


def _place(route: Route) -> str:
    """Say which demultiplexer is meant, and where."""
    path = "any path" if route.path is None else f"/{route.path}"
    return f"{routes.name(route.application)} at {path}"


def _validates(application: Any) -> bool:
    return (
        isinstance(application, OriginValidator)
        and "*" not in application.allowed_origins
    )
