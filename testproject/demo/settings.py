"""
Settings of the demo, and of the tests.

It runs on what is in the box: SQLite and an in-memory channel layer. Read from the
environment:

REDIS_URL
    Carries the channel layer over this Redis server, so that several processes
    share the rooms, and brings the prices that are published there.

DEMO_CHANNEL_LAYER
    Which of channels_redis' layers it is: ``core``, unless set, or ``pubsub``.

DEMO_DATABASE
    Path of the SQLite file; ``demo.sqlite3`` beside ``manage.py`` unless set.

DEMO_ALLOWED_HOSTS
    Comma-separated hosts to answer to, and to accept WebSockets from; this machine
    unless set.

DEMO_SECRET_KEY
    Set it where anybody else can reach the demo.

DEMO_STATIC_ROOT
    Where ``collectstatic`` puts the static files, for a proxy that serves them and
    the demo over HTTPS. Set, the demo runs as a site does: without ``DEBUG``, with
    secure cookies.
"""

import os
from pathlib import Path
from typing import Any

BASE_DIR = Path(__file__).resolve().parent.parent

STATIC_ROOT = os.environ.get("DEMO_STATIC_ROOT")

# A demo is for reading: errors come with their traceback.
DEBUG = STATIC_ROOT is None

# Public, so no secret. It's a constant because servers with several workers need
# the same key in each, which a generated one would not be.
SECRET_KEY = os.environ.get("DEMO_SECRET_KEY", "demo-key-known-to-everybody")

# AllowedHostsOriginValidator holds the Origin of WebSockets to this list, too.
_hosts = os.environ.get("DEMO_ALLOWED_HOSTS", "127.0.0.1,localhost,[::1]")
ALLOWED_HOSTS = _hosts.split(",")

INSTALLED_APPS = [
    # Before staticfiles, so that runserver is Daphne's.
    "daphne",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "channelsmultiplexer",
    "demo",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "demo.urls"

ASGI_APPLICATION = "demo.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
    },
]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("DEMO_DATABASE", BASE_DIR / "demo.sqlite3"),
    },
}

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

CHANNEL_LAYERS: dict[str, dict[str, Any]] = {
    "default": {"BACKEND": "channels.layers.InMemoryChannelLayer"},
}

# Empty, there is none.
REDIS_URL = os.environ.get("REDIS_URL", "")

REDIS_CHANNEL_LAYERS = {
    # Keeps messages in lists, where they wait for a process that is busy.
    "core": "channels_redis.core.RedisChannelLayer",
    # Publishes them, over one connection a process: what is sent while that is lost
    # is lost, too.
    "pubsub": "channels_redis.pubsub.RedisPubSubChannelLayer",
}

if REDIS_URL:
    CHANNEL_LAYERS["default"] = {
        "BACKEND": REDIS_CHANNEL_LAYERS[os.environ.get("DEMO_CHANNEL_LAYER", "core")],
        "CONFIG": {
            "hosts": [
                {
                    "address": REDIS_URL,
                    # The core layer takes a connection for each command that runs at
                    # once, and streams come back together. Since redis-py 8 a pool
                    # has 100, and a wait for a message lasts 5 seconds, unless told
                    # otherwise.
                    "max_connections": 10_000,
                    "socket_timeout": None,
                }
            ]
        },
    }

# No stream of this demo needs a large message, so none is let in: 16 KiB, where
# Daphne's default is 1 MiB. Read by runserver; other servers have an option for it.
DAPHNE_WEBSOCKET_MAX_MESSAGE_SIZE = 16 * 1024

USE_TZ = True

STATIC_URL = "static/"

if not DEBUG:
    # The proxy says how it was asked, and must not pass on what a client says of it.
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_SSL_REDIRECT = True
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True
    # Strict-Transport-Security outlasts a demo. It's for the host's owner to send.
    SILENCED_SYSTEM_CHECKS = ["security.W004"]
