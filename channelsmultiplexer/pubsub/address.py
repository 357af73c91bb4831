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


class Address:
    """
    A place to connect to, looked up anew for every connection.

    Args:
        location: A URL, the path of a socket, a host and a port, or a client of
            redis-py's to be like, also one from ``Sentinel.master_for()``.

        ssl: An :class:`ssl.SSLContext`, or :obj:`True` for redis-py's.

        options: Keyword arguments of :class:`redis.asyncio.Redis`.
    """

    def __init__(
        self,
        location: Location = "redis://localhost:6379",
        *,
        ssl: bool | _ssl.SSLContext | None = None,
        **options: Any,
    ) -> None:
        self._context = ssl if isinstance(ssl, _ssl.SSLContext) else None
        if ssl is not None and not (isinstance(location, str) and "://" in location):
            options["ssl"] = bool(ssl)
        if isinstance(location, redis.asyncio.Redis):
            if options:
                raise TypeError("a client of redis-py's brings its own options")
            client = location
        elif isinstance(location, tuple):
            host, port = location
            client = redis.asyncio.Redis(host=host, port=port, **options)
        elif "://" in location:
            if ssl:
                location = location.replace("redis://", "rediss://", 1)
            client = redis.asyncio.Redis.from_url(location, **options)
        else:
            client = redis.asyncio.Redis(unix_socket_path=location, **options)
        self._pool: Any = client.connection_pool

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
            OSError: If nobody answers there, or TLS fails.
            redis.RedisError: If Sentinel knows no master.
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
            host, port = await manager.discover_master(service)
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
            credentials = await provider.get_credentials_async()
            *name, password = credentials
            username = name[0] if name else None
        return Login(username, password, int(target.db), target.client_name)
