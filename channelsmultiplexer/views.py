"""
The debug page: what this process carries now.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

from django.contrib.admin.views.decorators import staff_member_required
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from .demultiplexer import AsyncJsonWebsocketDemultiplexer
from .stream import Stream

__all__ = ["debug"]

# How many sockets a page shows.
PAGE_SIZE = 50

# How many addresses of sockets the console proposes.
MAX_PROPOSALS = 20

Demultiplexer = AsyncJsonWebsocketDemultiplexer


@require_safe
@never_cache
@staff_member_required
def debug(request: HttpRequest) -> HttpResponse:
    """
    List the live sockets of this process and their streams, the newest first.
    """
    classes = set(_family(AsyncJsonWebsocketDemultiplexer))
    live = [item for cls in classes for item in list(cls._ledger.sockets.items())]
    live.sort(key=lambda item: item[1], reverse=True)
    page = Paginator(live, PAGE_SIZE).get_page(request.GET.get("page"))
    figures = [(cls.__qualname__, cls.stats()) for cls in classes]
    context = {
        "page": page,
        "sockets": [_socket(socket, since) for socket, since in page],
        "figures": sorted(
            (item for item in figures if item[1].sockets.ever),
            key=lambda item: item[0],
        ),
        "urls": _urls(socket for socket, _ in live),
        "paths": sorted({name for cls in classes for name in cls.applications} - {""}),
        # Of django-csp; Django's own is in the context already.
        "nonce": getattr(request, "csp_nonce", None),
    }
    return render(request, "channelsmultiplexer/debug.html", context)


def _family(cls: type[Demultiplexer]) -> Iterator[type[Demultiplexer]]:
    yield cls
    for subclass in cls.__subclasses__():
        yield from _family(subclass)


def _urls(sockets: Iterator[Demultiplexer]) -> list[str]:
    """Return the addresses of some sockets, each once."""
    urls: dict[str, None] = {}
    for socket in sockets:
        # A client may have asked for "//elsewhere/", which is another host's URL.
        urls["/" + socket.scope["path"].lstrip("/\\")] = None
        if len(urls) == MAX_PROPOSALS:
            break
    return sorted(urls)


# The attributes of a socket are private because its messages can name public ones.


def _socket(socket: Demultiplexer, since: float) -> dict[str, Any]:
    streams = sorted(socket._running, key=lambda s: (len(s.name), s.name))
    return {
        "path": socket.scope["path"],
        "user": socket.scope.get("user"),
        "since": datetime.datetime.fromtimestamp(since, datetime.timezone.utc),
        "dialect": type(socket._dialect).__name__.lower(),
        "demultiplexer": type(socket).__qualname__,
        "streams": [_stream(stream) for stream in streams],
    }


def _stream(stream: Stream) -> dict[str, Any]:
    return {
        "name": stream.name,
        "path": stream.path,
        "state": stream.state.name.lower(),
        "frames_received": stream.frames_received,
        "bytes_received": stream.bytes_received,
        "frames_sent": stream.frames_sent,
        "bytes_sent": stream.bytes_sent,
        "waiting": stream.inbox.waiting,
        "waiting_size": stream.inbox.size,
    }
