"""The README's requests, sent as they stand there: their answers are the README's, digit for digit."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import httpx
import pytest

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"```bash\n(curl [^\n]*)\n```\n\n```json\n([^\n]*)\n```", README)
HERE = "http://127.0.0.1:8000"


def send(command: str, server: str) -> str:
    """What the curl command would print."""
    words = [word.replace(HERE, server) for word in shlex.split(command)]
    url = next(word for word in words if word.startswith("http"))
    if "--json" not in words:
        return httpx.get(url).text
    body = words[words.index("--json") + 1]
    return httpx.post(url, content=body, headers={"Content-Type": "application/json"}).text


def test_there_are_requests_in_it() -> None:
    assert len(SHOWN) >= 4


@pytest.mark.parametrize(("command", "answer"), SHOWN, ids=[command[:60] for command, _ in SHOWN])
def test_answers_as_it_says(command: str, answer: str, server: str) -> None:
    assert send(command, server) == answer
