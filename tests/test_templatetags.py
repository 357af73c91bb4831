"""
The browser module in templates.
"""

from __future__ import annotations

import json
import re

import pytest
from django.core.management import call_command
from django.template import Context, Template
from django.test import RequestFactory
from django.utils.functional import SimpleLazyObject


def render(tag, **context):
    """
    Return what a tag renders.
    """
    return Template(f"{{% load channelsmultiplexer %}}{{% {tag} %}}").render(
        Context(context)
    )


def test_module_url():
    """The module's URL is that of a static file."""
    assert render("multiplex_module_url") == "/static/channelsmultiplexer/multiplex.js"


def test_script():
    """The script is an import map with the module's URL."""
    start, text, end = re.split("(?<=>)(?={)|(?=</)", render("multiplex_script"))
    assert (start, end) == ('<script type="importmap">', "</script>")
    url = "/static/channelsmultiplexer/multiplex.js"
    assert json.loads(text) == {"imports": {"channelsmultiplexer": url}}


def test_nonce_of_the_context():
    """The script has the nonce of the context, even one that is still lazy."""
    nonce = SimpleLazyObject(lambda: "abc&")
    assert ' nonce="abc&amp;">' in render("multiplex_script", csp_nonce=nonce)


def test_nonce_of_the_request():
    """The script has the request's nonce if the context has none."""
    request = RequestFactory().get("/")
    assert "nonce" not in render("multiplex_script", request=request)
    request.csp_nonce = "xyz"
    assert ' nonce="xyz">' in render("multiplex_script", request=request)


def test_escapes(settings):
    """A URL can't end the script element."""
    settings.STATIC_URL = "https://example.com/</script>&"
    assert render("multiplex_script").count("</script>") == 1


@pytest.fixture
def manifest(settings, tmp_path):
    """
    Collect the static files with hashes in their names.
    """
    backend = "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"
    settings.STORAGES = {**settings.STORAGES, "staticfiles": {"BACKEND": backend}}
    settings.STATIC_ROOT = tmp_path
    settings.DEBUG = False
    call_command("collectstatic", interactive=False, verbosity=0)
    return tmp_path


def test_manifest_storage(manifest):
    """Under ManifestStaticFilesStorage the URL has the hash, and the file is there."""
    url = render("multiplex_module_url")
    name = re.fullmatch(r"/static/(channelsmultiplexer/multiplex\.\w{12}\.js)", url)[1]
    assert "export class Multiplex" in (manifest / name).read_text()
