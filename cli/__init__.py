"""The ``ctinv`` command: thin, with no logic of its own."""

from .app import cli, main

__all__ = ["cli", "main"]
