"""
The browser module in a template: ``{% load channelsmultiplexer %}``.
"""

from __future__ import annotations

import json
from typing import Any

from django import template
from django.templatetags.static import static
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

__all__ = ["multiplex_module_url", "multiplex_script"]

register: template.Library = template.Library()

# JSON inside a script element must not end it, or open a comment.
_ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&"}


@register.simple_tag
def multiplex_module_url() -> str:
    """
    Return the URL of the browser module, by the project's static storage.
    """
    return static("channelsmultiplexer/multiplex.js")


@register.simple_tag(takes_context=True)
def multiplex_script(context: template.Context) -> SafeString:
    """
    Return an import map, after which any module of the page can say
    ``import { Multiplex } from "channelsmultiplexer"``.

    A static file can't know the hash that a storage puts in another's name, and
    storages don't rewrite imports; the map is how it needn't. It has to stand
    before the first module. A page with a map of its own takes
    :func:`multiplex_module_url` instead: not every browser merges two.

    The element has the nonce of the Content-Security-Policy, if there is one:
    ``csp_nonce`` in the context (Django 6), else ``request.csp_nonce``
    (django-csp).
    """
    nonce: Any = context.get("csp_nonce")
    if nonce is None:
        nonce = getattr(context.get("request"), "csp_nonce", None)
    imports = {"imports": {"channelsmultiplexer": multiplex_module_url()}}
    return format_html(
        '<script type="importmap"{}>{}</script>',
        # None, not falsy: a nonce is lazy, and false until it is used.
        "" if nonce is None else format_html(' nonce="{}"', nonce),
        mark_safe(json.dumps(imports).translate(_ESCAPES)),
    )
