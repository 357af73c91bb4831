"""
The demo for an ASGI server: ``demo.asgi:application``.
"""

import os

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.conf import settings
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "demo.settings")

http_application = get_asgi_application()

# Below get_asgi_application(), which loads the models that the consumers import.
from demo.routing import websocket_urlpatterns  # noqa: E402

if settings.DEBUG:
    # runserver serves static files by itself; bare Daphne and Uvicorn do not.
    http_application = ASGIStaticFilesHandler(http_application)

application = ProtocolTypeRouter(
    {
        "http": http_application,
        "websocket": AllowedHostsOriginValidator(
            AuthMiddlewareStack(URLRouter(websocket_urlpatterns))
        ),
    }
)
