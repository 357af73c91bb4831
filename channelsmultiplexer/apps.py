"""
What Django looks for in an installed application.
"""

from __future__ import annotations

from django.apps import AppConfig

__all__ = ["ChannelsMultiplexerConfig"]


class ChannelsMultiplexerConfig(AppConfig):
    """
    Makes the static files and the template tags known to Django.

    The demultiplexer works without it.
    """

    name = "channelsmultiplexer"
    verbose_name = "Channels multiplexer"
