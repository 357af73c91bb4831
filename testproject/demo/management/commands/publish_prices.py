"""
The program that the prices come from: ``manage.py publish_prices``.
"""

import random
import time
from typing import Any

import redis
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

# What is sold, and its price to begin with.
PRICES = {"cocoa": 7.80, "coffee": 4.20, "sugar": 0.45, "tea": 3.10, "vanilla": 95.00}

# Seconds from one price to the next.
INTERVAL = 0.4


class Command(BaseCommand):
    """
    Publishes made-up prices, each to a Redis channel of its own.

    It knows no consumer, and nothing of Channels: any program could be in its place.
    """

    help = "Publish made-up prices to the Redis at REDIS_URL, until interrupted."

    def handle(self, *args: Any, **options: Any) -> None:
        """
        Publish until interrupted.
        """
        if not settings.REDIS_URL:
            raise CommandError("Set REDIS_URL, to redis://localhost:6379 for example.")
        try:
            with redis.Redis.from_url(settings.REDIS_URL) as server:
                self._publish(server)
        except redis.ConnectionError as error:
            raise CommandError(f"Redis doesn't answer: {error}") from error
        except KeyboardInterrupt:
            pass

    def _publish(self, server: redis.Redis) -> None:
        """Let one price after another move, by a percent or so."""
        server.ping()
        self.stdout.write("Publishing. Ctrl-C ends it.")
        prices = dict(PRICES)
        is_out = False
        while True:
            name = random.choice(list(prices))
            prices[name] *= random.uniform(0.99, 1.01)
            try:
                server.publish(f"prices.{name}", f"{prices[name]:.3f}")
            # Nobody heard of this price. The next one replaces it.
            except redis.ConnectionError as error:
                if not is_out:
                    self.stdout.write(f"Redis doesn't answer: {error}. Trying again.")
                is_out = True
            else:
                if is_out:
                    self.stdout.write("Redis answers again.")
                is_out = False
            time.sleep(INTERVAL)
