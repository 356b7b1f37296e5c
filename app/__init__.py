"""Gradwire's HTTP layer: it reads requests, asks the engine, writes answers."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("gradwire")
except PackageNotFoundError:  # run from a checkout, where nothing is installed
    __version__ = "0.1.0"
