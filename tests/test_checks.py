"""
Django's system checks, as ``manage.py check`` runs them.
"""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator, OriginValidator
from daphne.server import Server
from django.core.checks import run_checks
from django.core.management import call_command
from django.urls import path

from channelsmultiplexer import AsyncJsonWebsocketDemultiplexer, checks
from consumers import Echo

ROOT = Path(__file__).parent.parent

SETTINGS = """
import django
from django.conf import settings

settings.configure(
    ASGI_APPLICATION="checked_site.application", INSTALLED_APPS={apps}
)
django.setup()
"""


@pytest.fixture
def check(settings, monkeypatch):
    """
    Return what runs this package's checks on an application.
    """

    def run(application, **kwargs):
        site = types.ModuleType("site_asgi")
        site.application = application
        monkeypatch.setitem(sys.modules, site.__name__, site)
        settings.ASGI_APPLICATION = "site_asgi.application"
        return run_checks(tags=[checks.TAG], **kwargs)

    return run


@pytest.fixture
def check_streams(check):
    """
    Return what checks a demultiplexer with the applications it is given.
    """

    def run(**applications):
        return check(AsyncJsonWebsocketDemultiplexer.as_asgi(**applications))

    return run


def sole(messages, identifier):
    """
    Return the one message there is, once it is seen to have all its parts.
    """
    (message,) = messages
    assert message.id == f"channelsmultiplexer.{identifier}"
    assert message.is_serious() == identifier.startswith("E")
    assert message.msg
    assert message.hint
    assert message.obj
    return message


def test_demo():
    """The demo passes all checks of this package, those of a deployment as well."""
    assert run_checks(tags=[checks.TAG], include_deployment_checks=True) == []


def test_demo_deployed(tmp_path):
    """As the demo is deployed, manage.py check --deploy finds nothing at all."""
    command = [sys.executable, "testproject/manage.py", "check", "--deploy"]
    env = {
        **os.environ,
        "DEMO_SECRET_KEY": "0123456789" * 5,
        "DEMO_STATIC_ROOT": str(tmp_path),
    }
    output = subprocess.check_output(command, cwd=ROOT, env=env, text=True)
    assert output == "System check identified no issues (1 silenced).\n"


@pytest.mark.parametrize("value", [None, ""])
def test_no_asgi_application(settings, value):
    """A project without ASGI_APPLICATION is warned: it can't be checked."""
    settings.ASGI_APPLICATION = value
    message = sole(run_checks(tags=[checks.TAG]), "W001")
    assert "is not set" in message.msg


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("no_such_module.application", "ModuleNotFoundError: No module named"),
        ("demo.asgi.nothing", "ImportError: Module"),
        ("application", "ImportError: application doesn't look like"),
        ("checked_site_that_raises.application", "KeyError: 'unset'"),
    ],
)
def test_failed_import(settings, tmp_path, monkeypatch, value, why):
    """An ASGI_APPLICATION that can't be imported is an error that says why."""
    (tmp_path / "checked_site_that_raises.py").write_text("{}['unset']")
    monkeypatch.syspath_prepend(tmp_path)
    settings.ASGI_APPLICATION = value
    message = sole(run_checks(tags=[checks.TAG]), "E001")
    assert why in message.msg


def test_asgi_application_of_wrong_type(check):
    """An ASGI_APPLICATION that can't be called is an error."""
    assert "its type is dict" in sole(check({}), "E001").msg


def run_site(code, apps=()):
    """
    Run code in a project of its own, and return what it writes.
    """
    source = SETTINGS.format(apps=list(apps)) + code
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", source]
    return subprocess.check_output(command, env=env, text=True)


def test_missing_extra():
    """What an import misses that an extra would bring, is named with the extra."""
    code = (
        "import sys\n"
        # Which is how a module that isn't installed is imitated.
        "sys.modules['redis'] = sys.modules['hiredis'] = None\n"
        "from django.core.checks import run_checks\n"
        "for message in run_checks(): print(message.id, message.msg, message.hint)"
    )
    written = run_site(code, ["channelsmultiplexer"])
    assert written.startswith("channelsmultiplexer.E002 ")
    assert "redis, which is not installed" in written
    assert 'pip install "channelsmultiplexer[redis]"' in written


def test_without_the_app():
    """Without the app in INSTALLED_APPS the demultiplexer is there, unchecked."""
    code = (
        "from channelsmultiplexer import AsyncJsonWebsocketDemultiplexer\n"
        "from django.core.checks import run_checks\n"
        "print(AsyncJsonWebsocketDemultiplexer.as_asgi().__name__, run_checks())"
    )
    assert run_site(code) == "AsyncJsonWebsocketDemultiplexer []\n"


def test_own_missing_module(settings, tmp_path, monkeypatch):
    """A module that the project misses by itself is no matter of extras."""
    monkeypatch.setitem(sys.modules, "hiredis", None)
    (tmp_path / "checked_site_of_its_own.py").write_text("import hiredis")
    monkeypatch.syspath_prepend(tmp_path)
    settings.ASGI_APPLICATION = "checked_site_of_its_own.application"
    assert "hiredis" in sole(run_checks(tags=[checks.TAG]), "E001").msg


def test_applications_of_wrong_type(check):
    """Applications that are no mapping are an error."""

    class Demultiplexer(AsyncJsonWebsocketDemultiplexer):
        applications = [("echo", Echo.as_asgi())]

    message = sole(check(Demultiplexer.as_asgi()), "E003")
    assert "its type is list" in message.msg
    assert message.obj is Demultiplexer


@pytest.mark.parametrize(
    "application",
    ["consumers.Echo", None, URLRouter([path("<int:n>/", Echo)])],
)
def test_no_application(check_streams, application):
    """A stream that leads to no ASGI application is an error that names it."""
    message = sole(check_streams(echo=application), "E004")
    assert "Stream 'echo" in message.msg


def test_mounted_class(check):
    """A demultiplexer that is mounted without as_asgi() is an error."""
    router = URLRouter([path("ws/", AsyncJsonWebsocketDemultiplexer)])
    message = sole(check(router), "E004")
    assert "AsyncJsonWebsocketDemultiplexer at /ws/ is a class" in message.msg
    assert "AsyncJsonWebsocketDemultiplexer.as_asgi()" in message.hint


@pytest.mark.parametrize("application", [Echo, Echo.as_asgi(), URLRouter([])])
def test_applications(check_streams, application):
    """What the demultiplexer takes for an application passes."""
    assert check_streams(echo=application) == []


@pytest.mark.parametrize("name", [1, None, "é" * 128])
def test_name(check, name):
    """A name that is not a string, or is too long to send, is an error."""

    class Demultiplexer(AsyncJsonWebsocketDemultiplexer):
        applications = {name: Echo.as_asgi()}

    assert repr(name) in sole(check(Demultiplexer.as_asgi()), "E005").msg


@pytest.mark.parametrize("name", ["", "users.orgplayer", "n" * 255])
def test_good_name(check_streams, name):
    """Any string of up to 255 bytes is a name."""
    assert check_streams(**{name: Echo.as_asgi()}) == []


@pytest.mark.parametrize(
    "application", [AuthMiddlewareStack(Echo()), URLRouter([path("", Echo())])]
)
def test_shared_consumer(check_streams, application):
    """One consumer for all clients is an error: each would get the others' data."""
    assert "share the one Echo" in sole(check_streams(echo=application), "E006").msg


def test_copied_consumer(check_streams):
    """A consumer that the demultiplexer copies for each client is a warning."""
    message = sole(check_streams(echo=Echo()), "W002")
    assert "gets a copy" in message.msg
    assert "Echo.as_asgi()" in message.hint


def test_demultiplexer_as_application(check_streams):
    """An instance of a demultiplexer may serve many clients."""
    inner = AsyncJsonWebsocketDemultiplexer(echo=Echo.as_asgi())
    assert check_streams(inner=URLRouter([path("", inner)])) == []


@pytest.mark.parametrize("seconds", [10, 60.0])
def test_close_timeout(check, seconds):
    """A close timeout that Daphne doesn't grant is a warning."""

    class Demultiplexer(AsyncJsonWebsocketDemultiplexer):
        application_close_timeout = seconds

    message = sole(check(Demultiplexer.as_asgi()), "W003")
    assert str(seconds) in message.msg


def test_close_timeout_of_an_instance(check):
    """The close timeout of a mounted instance is its own."""
    demultiplexer = AsyncJsonWebsocketDemultiplexer()
    demultiplexer.application_close_timeout = 11
    assert "11" in sole(check(demultiplexer), "W003").msg


def test_close_timeout_of_daphne():
    """Daphne's close timeout is what it is taken for."""
    parameter = inspect.signature(Server).parameters["application_close_timeout"]
    assert parameter.default == checks.DAPHNE_CLOSE_TIMEOUT


def origins(check, wrap):
    """
    Return what a deployment is told of a demultiplexer at /ws/.
    """
    router = URLRouter([path("ws/", AsyncJsonWebsocketDemultiplexer.as_asgi())])
    application = ProtocolTypeRouter({"websocket": wrap(router)})
    return check(application, include_deployment_checks=True)


@pytest.mark.parametrize(
    "wrap", [AuthMiddlewareStack, lambda inner: OriginValidator(inner, ["*"])]
)
def test_no_origin_validation(check, wrap):
    """Before a deployment, a demultiplexer that takes any origin is a warning."""
    message = sole(origins(check, wrap), "W004")
    assert "AsyncJsonWebsocketDemultiplexer at /ws/" in message.msg


def test_origin_validation(check):
    """A demultiplexer within a validator of origins passes."""
    assert origins(check, AllowedHostsOriginValidator) == []


def test_no_origin_validation_in_development(check):
    """Only before a deployment are origins looked at."""
    assert check(AsyncJsonWebsocketDemultiplexer.as_asgi()) == []


def test_mounted_twice(check):
    """What is wrong with a demultiplexer is said once, wherever it is mounted."""
    demultiplexer = AsyncJsonWebsocketDemultiplexer.as_asgi(echo=None)
    router = URLRouter([path("a/", demultiplexer), path("b/", demultiplexer)])
    sole(check(router), "E004")


def test_silencing(check, settings, capsys):
    """What is wrong can be silenced, as with all of Django's checks."""
    settings.SILENCED_SYSTEM_CHECKS = ["channelsmultiplexer.W002"]
    check(AsyncJsonWebsocketDemultiplexer.as_asgi(echo=Echo()))
    call_command("check", tags=[checks.TAG])
    assert "no issues (1 silenced)" in capsys.readouterr().out
