"""The command line: `python -m activations`, or `activations`."""

from activations.cli.app import main

__all__ = ["main"]
