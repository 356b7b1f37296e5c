"""Readiness: checks by name, within a time, not asked too often, and what a probe reads."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from app.main import create_app
from app.services import readiness
from app.services.readiness import NotReady, Readiness
from app.settings import Settings
from tests.app.support import problem
from tests.conftest import InProcess


def good() -> None:
    pass


async def bad() -> None:
    raise NotReady("2 of 2 are gone")


async def broken() -> None:
    raise ZeroDivisionError("a secret")


async def hanging() -> None:
    await asyncio.sleep(60)


def found(it: Readiness) -> dict[str, str]:
    return asyncio.run(it.found())


def test_each_check_says_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "CHECK_SECONDS", 0.1)
    said = found(Readiness({"good": good, "bad": bad, "broken": broken, "hanging": hanging}))
    assert said["good"] == "ok"
    assert said["bad"] == "2 of 2 are gone"
    assert "log" in said["broken"] and "secret" not in said["broken"]
    assert said["hanging"] == "no answer within 0.1 s"


def test_without_checks_all_is_well() -> None:
    assert found(Readiness({})) == {}


def test_a_check_is_not_asked_again_at_once_nor_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "CHECK_SECONDS", 0.05)
    calls: list[str] = []

    async def counted() -> None:
        calls.append("counted")

    async def stuck() -> None:
        calls.append("stuck")
        await asyncio.sleep(60)

    async def several(it: Readiness) -> None:
        for _ in range(4):
            await it.found()

    it = Readiness({"counted": counted, "stuck": stuck})
    asyncio.run(several(it))
    assert sorted(calls) == ["counted", "stuck"]


def test_a_check_is_asked_again_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was wrong may be right again."""
    monkeypatch.setattr(readiness, "FRESH_SECONDS", 0.0)
    wrong = ["wrong"]

    def check() -> None:
        if wrong:
            raise NotReady(wrong.pop())

    async def twice(it: Readiness) -> list[str]:
        return [(await it.found())["it"] for _ in range(2)]

    assert asyncio.run(twice(Readiness({"it": check}))) == ["wrong", "ok"]


def test_a_probe_reads_what_was_checked(tmp_path: Path) -> None:
    app = create_app(Settings(store_path=tmp_path / "graphs.sqlite3"))
    with httpx.Client(transport=InProcess(app), base_url="http://in-process") as client:
        checks = dict.fromkeys(app.state.readiness.checks, "ok")
        assert client.get("/readyz").json() == {"status": "ok", "checks": checks} and "store" in checks
        app.state.readiness.checks["another"] = bad
        response = client.get("/readyz")
        said = problem(response)
        assert (said["code"], response.headers["retry-after"]) == ("overloaded", "1")
        assert said["detail"] == "not ready: another: 2 of 2 are gone"
        assert said["checks"] == checks | {"another": "2 of 2 are gone"}
        assert client.get("/healthz").json() == {"status": "ok"}


def test_draining_is_told_and_all_else_is_served(tmp_path: Path) -> None:
    app = create_app(Settings(store_path=tmp_path / "graphs.sqlite3"))
    with httpx.Client(transport=InProcess(app), base_url="http://in-process") as client:
        app.state.readiness.drain()
        assert "draining" in problem(client.get("/readyz"))["checks"]
        assert client.get("/healthz").status_code == 200
        assert client.get("/grad?expr=x&x=1").status_code == 200
