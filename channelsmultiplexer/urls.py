"""
The debug page, for a project that includes it::

    # urls.py
    from django.contrib import admin
    from django.urls import include, path

    urlpatterns = [
        path("admin/", admin.site.urls),
        path("multiplexer/", include("channelsmultiplexer.urls")),
    ]

It lists the sockets and streams of the process that answers, and has a console to
open a stream and talk to it. It is for staff, who log in where Django's admin has
them log in, so both apps have to be installed, and the admin's URLs included. What
it shows (paths without their queries, users, figures) is nothing to give away;
what the console opens is what its user may open anyway.
"""

from __future__ import annotations

from django.urls import URLPattern, path

from . import views

__all__ = ["app_name", "urlpatterns"]

app_name = "channelsmultiplexer"

urlpatterns: list[URLPattern] = [path("", views.debug, name="debug")]
