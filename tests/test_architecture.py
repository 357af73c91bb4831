"""
Who may import whom, and what importing costs.
"""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import channelsmultiplexer

PACKAGE = Path(channelsmultiplexer.__file__).parent

STDLIB = sys.stdlib_module_names

# Module: what it may import from the package, and from outside the standard library.
IMPORTS = {
    "__init__": ({"demultiplexer", "exceptions"}, set()),
    "__main__": ({"client"}, set()),
    "apps": ({"checks"}, {"django"}),
    "backoff": (set(), set()),
    "checks": ({"demultiplexer", "envelope", "routes"}, {"channels", "django"}),
    "client.__init__": (
        {
            "connection",
            "events",
            "exceptions",
            "handlers",
            "limits",
            "link",
            "memory",
            "multiplex",
            "stats",
            "subscriptions",
            "supervisor",
        },
        set(),
    ),
    "client.channels": (
        {"dialects", "envelope", "mailbox", "link", "subscriptions"},
        set(),
    ),
    "client.connection": (
        {
            "backoff",
            "events",
            "exceptions",
            "mailbox",
            "limits",
            "link",
            "opener",
            "processors",
            "supervisor",
            "transports",
        },
        set(),
    ),
    "client.dialects": ({"control", "envelope"}, {"msgspec"}),
    "client.events": ({"exceptions", "mailbox"}, set()),
    "client.filters": (set(), set()),
    "client.handlers": ({"exceptions", "subscriptions"}, {"msgspec"}),
    "client.limits": (set(), set()),
    "client.link": ({"connection", "limits", "renewal"}, set()),
    "client.liveness": ({"link", "transports"}, set()),
    "client.memory": ({"mailbox"}, {"websockets"}),
    "client.multiplex": (
        {
            "channels",
            "connection",
            "dialects",
            "envelope",
            "events",
            "filters",
            "handlers",
            "mailbox",
            "limits",
            "router",
            "stats",
            "subscriptions",
            "supervisor",
            "transports",
        },
        set(),
    ),
    "client.opener": ({"exceptions", "link", "processors", "transports"}, set()),
    "client.processors": (set(), {"msgspec"}),
    "client.renewal": (set(), set()),
    "client.requests": (
        {
            "channels",
            "control",
            "dialects",
            "events",
            "exceptions",
            "link",
            "router",
            "subscriptions",
            "transports",
        },
        set(),
    ),
    "client.router": (
        {
            "channels",
            "connection",
            "dialects",
            "envelope",
            "events",
            "exceptions",
            "filters",
            "mailbox",
            "link",
            "requests",
            "subscriptions",
            "supervisor",
            "transports",
        },
        {"msgspec"},
    ),
    "client.stats": ({"router"}, set()),
    "client.subscriptions": (
        {
            "channels",
            "control",
            "dialects",
            "envelope",
            "exceptions",
            "mailbox",
            "processors",
            "router",
            "stats",
        },
        # The latter for type checkers alone.
        {"msgspec", "typing_extensions"},
    ),
    "client.supervisor": (
        {
            "events",
            "exceptions",
            "link",
            "liveness",
            "processors",
            "renewal",
            "transports",
        },
        set(),
    ),
    "client.transports": ({"exceptions"}, {"websockets"}),
    "control": ({"exceptions"}, {"msgspec"}),
    "demultiplexer": (
        {
            "control",
            "dialects",
            "envelope",
            "exceptions",
            "stats",
            "stream",
            "streams",
        },
        {"channels"},
    ),
    "dialects": ({"envelope", "exceptions"}, set()),
    "envelope": ({"control", "exceptions"}, {"msgspec"}),
    "exceptions": (set(), set()),
    "inbox": ({"exceptions"}, set()),
    "mailbox": ({"exceptions"}, set()),
    "management.__init__": (set(), set()),
    "management.commands.__init__": (set(), set()),
    "management.commands.multiplexer_streams": ({"routes"}, {"django"}),
    "pubsub.__init__": (
        {
            "callbacks",
            "consumer",
            "exceptions",
            "listening",
            "multiplexer",
            "promises",
            "subscriptions",
        },
        set(),
    ),
    "pubsub.address": (set(), {"redis"}),
    "pubsub.callbacks": ({"dispatcher", "exceptions", "listening", "registry"}, set()),
    "pubsub.connection": (
        {"address", "deadline", "exceptions", "registry"},
        {"hiredis"},
    ),
    "pubsub.consumer": (
        {"listening", "multiplexer", "registry", "subscriptions"},
        set(),
    ),
    "pubsub.deadline": (set(), set()),
    "pubsub.dispatcher": (set(), set()),
    "pubsub.link": ({"address", "connection", "exceptions", "registry"}, set()),
    "pubsub.listening": (
        {"connection", "dispatcher", "exceptions", "registry"},
        set(),
    ),
    "pubsub.multiplexer": (
        {
            "address",
            "backoff",
            "callbacks",
            "dispatcher",
            "exceptions",
            "link",
            "listening",
            "promises",
            "registry",
            "subscriptions",
        },
        set(),
    ),
    "pubsub.promises": (
        {"deadline", "exceptions", "listening", "registry"},
        set(),
    ),
    "pubsub.registry": ({"exceptions"}, set()),
    "pubsub.subscriptions": ({"exceptions", "listening", "registry"}, set()),
    "routes": ({"demultiplexer"}, {"channels"}),
    "signals": (set(), {"asgiref", "django"}),
    "stats": ({"stream"}, set()),
    "templatetags.__init__": (set(), set()),
    "templatetags.channelsmultiplexer": (set(), {"django"}),
    "stream": (
        {"control", "envelope", "exceptions", "inbox"},
        {"asgiref", "channels"},
    ),
    "streams": (
        {
            "control",
            "dialects",
            "envelope",
            "exceptions",
            "signals",
            "stream",
            "websocket",
        },
        {"django"},
    ),
    "testing": ({"control", "envelope", "exceptions"}, {"asgiref"}),
    "urls": ({"views"}, {"django"}),
    "views": ({"demultiplexer", "stream"}, {"django"}),
    "websocket": (
        {"control", "dialects", "envelope", "exceptions", "stats", "stream"},
        {"channels"},
    ),
}

# They decide, and leave it to others to act.
SANS_IO = {
    "client.dialects",
    "client.filters",
    "client.renewal",
    "client.stats",
    "control",
    "dialects",
    "envelope",
    "exceptions",
}


def syntax_tree(module):
    """
    Return the parsed source of a module.
    """
    return ast.parse((PACKAGE / f"{module.replace('.', '/')}.py").read_text())


def imports(module):
    """
    Return what a module imports: from the package, and from elsewhere.
    """
    ours, theirs = set(), set()
    for node in ast.walk(syntax_tree(module)):
        if isinstance(node, ast.Import):
            theirs |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            theirs.add(node.module.partition(".")[0])
        elif isinstance(node, ast.ImportFrom):
            ours |= {node.module} if node.module else {a.name for a in node.names}
    return ours, theirs


def test_every_module_is_in_the_table():
    """The table of imports has every module of the package."""
    paths = (path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
    assert {".".join(path.with_suffix("").parts) for path in paths} == IMPORTS.keys()


@pytest.mark.parametrize("module", IMPORTS)
def test_imports(module):
    """A module imports what the table lets it import."""
    ours, theirs = imports(module)
    may_import, third_parties = IMPORTS[module]
    assert ours <= may_import
    assert theirs - STDLIB <= third_parties


@pytest.mark.parametrize("module", sorted(SANS_IO - {"exceptions"}))
def test_sans_io(module):
    """Codec and routing decisions know no event loop and no logger."""
    assert not imports(module)[1] & {"asyncio", "logging", "socket", "threading"}


@pytest.mark.parametrize("module", IMPORTS)
def test_no_imports_in_functions(module):
    """No import hides in a function, to dodge a cycle or for any other reason."""
    for node in ast.walk(syntax_tree(module)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inner = ast.walk(node)
            assert not any(isinstance(n, ast.Import | ast.ImportFrom) for n in inner)


def test_importing_costs_nothing():
    """Importing the package loads neither Django, Channels nor asyncio."""
    others = ["django", "channels", "asyncio", "msgspec"]
    assert loaded("channelsmultiplexer", *others) == ""


def test_importing_the_client():
    """Importing the client loads neither Django nor Channels, nor what is optional."""
    name = "channelsmultiplexer.client"
    assert loaded(name, "django", "channels", "asgiref", "picows") == ""


def loaded(module, *others):
    """
    Return which others importing a module loads.
    """
    code = f"import sys, {module}; print(*{set(others)} & sys.modules.keys())"
    command = [sys.executable, "-I", "-c", code]
    return subprocess.check_output(command, text=True).strip()


@pytest.mark.parametrize(
    "module", ["", *(name for name in sorted(IMPORTS) if "__init__" not in name)]
)
def test_all(module):
    """A module's __all__ is sorted, and has names that are there."""
    name = f"channelsmultiplexer.{module}".rstrip(".")
    loaded = importlib.import_module(name)
    assert len(set(loaded.__all__)) == len(loaded.__all__)
    assert all(hasattr(loaded, public) for public in loaded.__all__)
    assert set(loaded.__all__) <= set(dir(loaded))


def test_unknown_name():
    """A name that the package doesn't have is an AttributeError."""
    with pytest.raises(AttributeError, match="has no attribute 'Demultiplexer'"):
        channelsmultiplexer.Demultiplexer  # noqa: B018


def test_loggers():
    """The loggers that are documented are those that there are."""
    row = r"^``(\.[\w.]+)`` "
    table = re.findall(row, channelsmultiplexer.__doc__, re.MULTILINE)
    found = set()
    for name in IMPORTS:
        source = (PACKAGE / f"{name.replace('.', '/')}.py").read_text()
        # At the beginning of a line: what a docstring shows isn't there.
        call = r"^logger: logging\.Logger = logging\.getLogger\((.*)\)$"
        for argument in re.findall(call, source, re.MULTILINE):
            shared = argument.strip('"').removeprefix("channelsmultiplexer")
            found.add(f".{name}" if argument == "__name__" else shared)
    assert set(table) == found
