"""
Where Redis is, and how to log in.

What redis-py understands, this does: it is redis-py that reads the URL or the
keywords, makes the TLS context, asks for credentials and asks Sentinel.
"""

from __future__ import annotations

import asyncio
import ssl as _ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import redis.asyncio
from redis.asyncio.sentinel import MasterNotFoundError

__all__ = ["Address", "Location"]

Location: TypeAlias = "str | tuple[str, int] | redis.asyncio.Redis"


@dataclass(frozen=True, slots=True)
class Login:
    """
    What a new connection says of itself.
    """

    username: str | None
    password: str | None = field(repr=False)
    db: int
    client_name: str | None


# The keywords of redis-py's that name a place.
PLACES = {"host", "port", "unix_socket_path"}


class Address:
    """
    A place to connect to, looked up anew for every connection.

    Args:
        location: A URL, the path of a socket, a host and a port, or a client of
            redis-py's to be like, also one from ``Sentinel.master_for()``. Without
            it, *options* say where.

        ssl: An :class:`ssl.SSLContext`, or :obj:`True` for redis-py's.

        options: Keyword arguments of :class:`redis.asyncio.Redis`.

    Raises:
        TypeError: If it names no place, or two.
        ValueError: If it is a text that names none, or a replica of Sentinel's.
    """

    def __init__(
        self,
        location: Location | None = None,
        *,
        ssl: bool | _ssl.SSLContext | None = None,
        **options: Any,
    ) -> None:
        self._context = ssl if isinstance(ssl, _ssl.SSLContext) else None
        is_url = isinstance(location, str) and "://" in location
        if ssl is not None and not is_url:
            options["ssl"] = bool(ssl)
        if location is not None and (second := PLACES & options.keys()):
            raise TypeError(f"a location, and {', '.join(sorted(second))} beside it")
        self._pool: Any = _client(location, ssl, options).connection_pool
        if is_url:
            # redis-py lets the URL win, without a word.
            for key, value in options.items():
                if self._pool.connection_kwargs.get(key, value) != value:
                    raise TypeError(f"the URL and {key}= contradict each other")
        if not getattr(self._pool, "is_master", True):
            raise ValueError("expected a client of Sentinel.master_for()")

    def __str__(self) -> str:
        service = getattr(self._pool, "service_name", None)
        if service is not None:
            return f"the master of {service!r}"
        # Made to be looked at. It connects to nothing.
        target = self._pool.make_connection()
        path = getattr(target, "path", None)
        return path or f"{target.host}:{target.port}"

    async def connect(
        self, protocol: Callable[[], asyncio.BaseProtocol]
    ) -> asyncio.BaseTransport:
        """
        Open a connection, and leave it to *protocol*.

        Raises:
            OSError: If nobody answers there, Sentinel knows no master, or TLS fails.
        """
        loop = asyncio.get_running_loop()
        target = self._pool.make_connection()
        path = getattr(target, "path", None)
        if path is not None:
            transport, _ = await loop.create_unix_connection(protocol, path)
            return transport
        host, port = target.host, target.port
        service = getattr(self._pool, "service_name", None)
        if service is not None:
            manager = self._pool.sentinel_manager
            try:
                host, port = await manager.discover_master(service)
            # In a failover there is none for a while: an outage like any other.
            except MasterNotFoundError as error:
                raise ConnectionError(str(error)) from error
        context = self._context
        if context is None and isinstance(target, redis.asyncio.SSLConnection):
            context = target.ssl_context.get()
        transport, _ = await loop.create_connection(protocol, host, port, ssl=context)
        return transport

    async def login(self) -> Login:
        """
        Return the credentials of the moment.
        """
        target = self._pool.make_connection()
        username, password = target.username, target.password
        provider = target.credential_provider
        if provider is not None:
            # redis-py 5.0 has none with a coroutine.
            if hasattr(provider, "get_credentials_async"):
                credentials = await provider.get_credentials_async()
            else:
                credentials = provider.get_credentials()
            *name, password = credentials
            username = name[0] if name else None
        return Login(username, password, int(target.db), target.client_name)


def _client(
    location: Location | None, ssl: Any, options: dict[str, Any]
) -> redis.asyncio.Redis:
    """Return a client of redis-py's, never to be connected."""
    match location:
        case None:
            return redis.asyncio.Redis(**options)
        case redis.asyncio.Redis():
            if options:
                names = ", ".join(options)
                raise TypeError(f"a client of redis-py's brings its own {names}")
            return location
        case (host, port) if isinstance(location, tuple):
            return redis.asyncio.Redis(host=host, port=port, **options)
        case tuple():
            raise TypeError(f"expected a host and a port, got {location!r}")
        case str() if "://" in location:
            if ssl:
                location = location.replace("redis://", "rediss://", 1)
            return redis.asyncio.Redis.from_url(location, **options)
        case str() if "/" in location:
            return redis.asyncio.Redis(unix_socket_path=location, **options)
        case str():
            raise ValueError(
                f"{location!r} is neither a URL nor the path of a socket, which has "
                f"a slash: redis://{location}?"
            )
    raise TypeError(
        f"expected a URL, a path, a host and a port, or a redis.asyncio.Redis, got "
        f"{type(location).__name__}"
    )
