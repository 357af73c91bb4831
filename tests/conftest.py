"""
What all tests share.
"""

from __future__ import annotations

import inspect

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """
    Let tests with consumers use the database.

    Channels looks after the database's connections at every dispatch, and
    pytest-django forbids that to tests that don't say so.
    """
    for item in items:
        is_async = inspect.iscoroutinefunction(getattr(item, "obj", None))
        if is_async and item.get_closest_marker("django_db") is None:
            item.add_marker(pytest.mark.django_db)
