"""
For tools that look for it. The metadata is in pyproject.toml.
"""

from setuptools import setup

setup()
