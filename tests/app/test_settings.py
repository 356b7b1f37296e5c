"""Settings: described, read from the environment, frozen, and refused with a message where they are wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields

import pytest
from pydantic import ValidationError
from threadpoolctl import threadpool_info, threadpool_limits

from app.serving import limit_blas
from app.settings import Settings, unknown
from engine.limits import Limits
from tests.conftest import ROOT


def test_every_setting_is_described() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description and field.description.endswith("."), name
    for each in fields(Limits):
        assert each.metadata["doc"].endswith("."), each.name


def test_every_limit_is_positive() -> None:
    limits = Limits()
    assert all(getattr(limits, each.name) > 0 for each in fields(Limits))


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADWIRE_PORT", "9000")
    monkeypatch.setenv("GRADWIRE_SECONDS", "2.5")
    monkeypatch.setenv("GRADWIRE_LOG_LEVEL", "debug")
    monkeypatch.setenv("GRADWIRE_LIMITS__NODES", "7")
    settings = Settings()
    assert (settings.port, settings.seconds, settings.log_level) == (9000, 2.5, "debug")
    assert settings.limits == Limits(nodes=7)


@pytest.mark.parametrize("name", [each.name for each in fields(Limits)])
def test_every_limit_has_a_variable(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"GRADWIRE_LIMITS__{name.upper()}", "5")
    assert Settings().limits == Limits(**{name: 5})


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]


WRONG = {
    "GRADWIRE_PORT": "eighty",
    "GRADWIRE_BODY_BYTES": "0",
    "GRADWIRE_SECONDS": "-1",
    "GRADWIRE_LOG_LEVEL": "loud",
    "GRADWIRE_LIMITS__NODES": "many",
    "GRADWIRE_LIMITS__RANK": "-1",
    "GRADWIRE_LIMITS__SPEED": "1",
    "GRADWIRE_LIMITS": "many",
    "GRADWIRE_THREADS": "",
}


@pytest.mark.parametrize(("name", "value"), WRONG.items())
def test_a_wrong_setting_ends_the_process_with_a_message(name: str, value: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "app"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "GRADWIRE_PORT": "0", name: value},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode not in (0, None)
    assert "Traceback" not in done.stderr
    assert "GRADWIRE" in done.stderr
    assert name.removeprefix("GRADWIRE_").removeprefix("LIMITS__").lower() in done.stderr


def test_blas_has_the_threads_that_are_set() -> None:
    with threadpool_limits(user_api="blas"):  # puts back what was
        for threads, expected in ((2, 2), (1, 1), (0, 1)):
            limit_blas(threads)
            assert {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"} == {expected}


def test_what_looks_like_a_setting_and_is_none_is_found() -> None:
    names = ["GRADWIRE_PORT", "GRADWIRE_PROT", "GRADWIRE_LIMITS__NODES", "GRADWIRE_LIMIT__NODES", "PATH", "GRADWIREX"]
    assert unknown(names) == ["GRADWIRE_LIMIT__NODES", "GRADWIRE_PROT"]
