"""Without keys, the service listens to its own machine only, unless it is told otherwise."""

from __future__ import annotations

import socket
import sys
from typing import Any

import pytest
import uvicorn

from app import serving
from app.__main__ import main
from app.services.keys import Key
from app.services.listening import refusal
from app.settings import Settings

OWN = ["127.0.0.1", "127.8.8.8", "::1", "localhost"]
OTHERS = ["0.0.0.0", "::", "", "192.0.2.7", "2001:db8::7", "no-such-name.invalid"]
KEY = Key.of("alice", "gw_alice", {}).line


@pytest.mark.parametrize("host", OWN)
def test_its_own_machine_needs_no_key(host: str) -> None:
    assert refusal(Settings(host=host)) is None


@pytest.mark.parametrize("host", OTHERS)
def test_others_need_one(host: str) -> None:
    said = refusal(Settings(host=host))
    assert said is not None
    assert all(word in said for word in (host, "GRADWIRE_KEYS_FILE", "GRADWIRE_OPEN", "GRADWIRE_HOST"))
    assert refusal(Settings(host=host, keys=KEY)) is None
    assert refusal(Settings(host=host, open=True)) is None


def test_a_name_that_stands_for_both_is_not_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, 0)) for each in ("127.0.0.1", "192.0.2.7")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert refusal(Settings(host="both.example")) is not None


@pytest.mark.parametrize("environment", [{"GRADWIRE_OPEN": "true"}, {"GRADWIRE_KEYS": KEY}, {"GRADWIRE_OPEN": "false"}])
def test_the_process_starts_or_does_not(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    """As in the image, where it is told to listen everywhere; a file that is empty is none, as compose has it."""
    started: list[Any] = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda server, sockets: started.append(server.config.host))
    monkeypatch.setattr(serving, "spare_collector", lambda: None)  # which is for good, as is what follows
    monkeypatch.setattr(serving, "leave", sys.exit)
    monkeypatch.setattr(sys, "argv", ["app"])
    given = {"GRADWIRE_HOST": "0.0.0.0", "GRADWIRE_KEYS_FILE": "", "GRADWIRE_STORE": "memory"} | environment
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    if environment == {"GRADWIRE_OPEN": "false"}:
        with pytest.raises(SystemExit, match="no keys are set"):
            main()
    else:
        with pytest.raises(SystemExit):  # as what serves has ended
            main()
    assert len(started) == (environment != {"GRADWIRE_OPEN": "false"})
