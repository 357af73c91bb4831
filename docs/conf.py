"""
How the documentation is built.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import django

ROOT = Path(__file__).parent.parent

# Some modules have Django models and settings behind them.
sys.path.insert(0, str(ROOT / "testproject"))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "demo.settings")
django.setup()

import channelsmultiplexer  # noqa: E402 (settings first)

project = "channelsmultiplexer"
author = "The channelsmultiplexer developers"
copyright = f"2026, {author}"  # noqa: A001 (Sphinx's word)
release = channelsmultiplexer.__version__
version = release

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_static_path = ["_static"]
html_title = f"channelsmultiplexer {release}"
html_css_files = ["pages.css"]
# A line for each parameter, where one doesn't hold them all.
python_maximum_signature_line_length = 80

# Every reference leads somewhere.
nitpicky = True
# These are documented elsewhere, and a build asks no network; or they are private; or
# they name what the type checker alone sees.
nitpick_ignore_regex = [
    ("py:.*", r"(asyncio|collections|typing|ssl|enum|weakref|http|json|logging)\b.*"),
    ("py:.*", r"(django|channels|asgiref|msgspec|websockets|picows|redis|hiredis)\b.*"),
    ("py:.*", r"(_asyncio|_contextvars|_ssl|types|dataclasses)\..*"),
    ("py:obj", r"True|False|None"),
    (
        "py:.*",
        r"channelsmultiplexer\.(pubsub\.(registry|listening|link|callbacks|deadline|dispatcher)|control)\..*",
    ),
    ("py:.*", r"channelsmultiplexer\.client\.(limits|opener|processors|renewal)\..*"),
    ("py:.*", r"channelsmultiplexer\..*\.(T|S|_\w+|Callback|MultiplexedWebsocket)"),
    ("py:class", r"Name|Location|Overflow|On[A-Z]\w+|Filter|Processor|Router|Registry"),
    (
        "py:(class|exc|meth)",
        r"ConnectionClosed|Route|Dispatcher|Requests|By|send_json|Refused",
    ),
]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
