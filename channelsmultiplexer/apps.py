"""
What Django looks for in an installed application.
"""

from __future__ import annotations

from django.apps import AppConfig

from .checks import register_checks

__all__ = ["ChannelsMultiplexerConfig"]


class ChannelsMultiplexerConfig(AppConfig):
    """
    Makes the static files, the template tags, the command and the system checks
    known to Django.

    The demultiplexer works without it.
    """

    name = "channelsmultiplexer"
    verbose_name: str = "Channels multiplexer"

    def ready(self) -> None:
        """
        Register the system checks.
        """
        register_checks()
