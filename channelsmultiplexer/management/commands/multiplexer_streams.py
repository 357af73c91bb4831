"""
``manage.py multiplexer_streams``: what a client can open, and what serves it.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils.module_loading import import_string

from ... import routes

__all__ = ["Command"]


class Command(BaseCommand):
    """
    Lists the demultiplexers that ``ASGI_APPLICATION`` leads to, and their streams.

    With ``--json`` it is a list of objects with ``path`` (:obj:`None` for any path),
    ``demultiplexer`` and ``streams``, each with ``stream`` and ``application``.
    """

    help = "Lists paths, the demultiplexers there, their streams and applications."

    # To look at a project that the checks find fault with.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """
        Add the one option.
        """
        parser.add_argument("--json", action="store_true", help="Write JSON.")

    def handle(self, *args: Any, **options: Any) -> None:
        """
        Write the list.
        """
        path = getattr(settings, "ASGI_APPLICATION", None)
        if not path:
            raise CommandError("ASGI_APPLICATION is not set.")
        try:
            application = import_string(path)
        # The module is the project's own, and may raise anything.
        except Exception as error:
            kind = type(error).__name__
            raise CommandError(
                f"{path!r} cannot be imported: {kind}: {error}"
            ) from error
        found = [
            {
                "path": None if route.path is None else f"/{route.path}",
                "demultiplexer": routes.name(route.application),
                "streams": [
                    {
                        "stream": stream.path,
                        "application": routes.name(stream.application),
                    }
                    for stream in routes.streams(route)
                ],
            }
            for route in routes.demultiplexers(application)
        ]
        if options["json"]:
            self.stdout.write(json.dumps(found, indent=2))
        elif found:
            self.stdout.write("\n\n".join(map(_table, found)))
        else:
            self.stdout.write(f"No demultiplexer can be found from {path}.")


def _table(found: dict[str, Any]) -> str:
    """Return the lines about one demultiplexer."""
    path = "(any path)" if found["path"] is None else found["path"]
    lines = [f"{path}  {found['demultiplexer']}"]
    rows = [(s["stream"] or "(any other)", s["application"]) for s in found["streams"]]
    width = max((len(stream) for stream, _ in rows), default=0)
    lines += [f"    {stream:{width}}  {application}" for stream, application in rows]
    return "\n".join(lines if rows else [*lines, "    (no streams)"])
