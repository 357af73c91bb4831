#!/usr/bin/env python
"""
The demo's command line: ``python testproject/manage.py runserver``.
"""

import os
import sys

from django.core.management import execute_from_command_line
from django.utils.autoreload import DJANGO_AUTORELOAD_ENV


def main() -> None:
    """
    Run the command that the arguments name.

    ``runserver`` applies the migrations first, so that a fresh clone just works.
    """
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "demo.settings")
    # Here rather than in AppConfig.ready(), which also runs under tests, under other
    # servers and in every worker, where nobody asked for the database to change.
    # The autoreloader starts this file a second time with its variable set: only
    # the first process migrates, and it does so before there is a second.
    if sys.argv[1:2] == ["runserver"] and DJANGO_AUTORELOAD_ENV not in os.environ:
        execute_from_command_line([sys.argv[0], "migrate", "--verbosity=0"])
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
