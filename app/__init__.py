"""Gradwire's HTTP layer: it reads requests, asks the engine, writes answers."""

__version__ = "0.1.0"
