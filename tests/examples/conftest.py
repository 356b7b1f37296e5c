"""Examples, run as a newcomer runs them: from the repository's root, by their command line."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(server: str) -> Run:
    """Runs a command at the root, the server's address being the last argument, and GRADWIRE_URL being wrong."""

    def run_command(*command: str, url: str | None = server, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, url] if url else command,
            check=False,
            cwd=ROOT,
            env=os.environ | {"GRADWIRE_URL": "http://127.0.0.1:9"} | environment,
            capture_output=True,
            encoding="utf-8",
            timeout=60,
        )

    return run_command


@pytest.fixture
def api(server: str) -> Iterator[httpx.Client]:
    """A client of the server, as the examples open one."""
    with httpx.Client(base_url=server) as client:
        yield client
