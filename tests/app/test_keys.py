"""Keys: who has one is served, by its name and limits; who has none is told so, and nothing more."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import openapi_spec_validator
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from app.__main__ import main
from app.http.guard import PROBES, Guard
from app.main import create_app
from app.services import keys as module
from app.services.clients import CLIENT, client_at
from app.services.keys import Key, Keys, KeysUnusable, new_token, parsed
from app.services.tasks import Client
from app.serving import config_of
from app.settings import Settings
from tests.app.support import ask, post, problem
from tests.conftest import AppClient, serving

CUBE = {"expression": "y = x**3", "inputs": {"x": 2}}
TOKEN, OTHER = "gw_alice-0123456789_abcdefghij-ABCDEFGHIJ_aaaaa", "gw_bob-0123456789_abcdefghij-ABCDEFGHIJ_bbbbbbb"
ALICE, BOB = Key.of("alice", TOKEN, {}), Key.of("bob", OTHER, {"at_once": 3, "rate": 0.5})
KEYED = {"keys": f"{ALICE.line}; {BOB.line}"}
REALM = 'Bearer realm="gradwire"'


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def keys_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A keys file with alice and bob, that is looked at with every request."""
    monkeypatch.setattr(module, "LOOKING_SECONDS", 0.0)
    path = tmp_path / "keys"
    path.write_text(f"# who may ask\n{ALICE.line}  # the first\n\n{BOB.line}\n")
    return path


def keys_of(path: Path, **settings: Any) -> Keys:
    return Keys(Settings(keys_file=path, **settings))


def test_without_keys_nobody_needs_one(app_client: AppClient) -> None:
    client = app_client()
    ask(client, "/grad", CUBE)
    ask(client, "/grad", CUBE, headers=bearer("whatever"))
    assert "security" not in client.get("/openapi.json").json()


@pytest.mark.parametrize("token", [TOKEN, OTHER])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer "])
def test_who_has_a_key_is_served(app_client: AppClient, token: str, scheme: str) -> None:
    ask(app_client(**KEYED), "/grad", CUBE, headers={"Authorization": f"{scheme} {token}"})


def test_every_route_but_those_that_are_open_asks_for_a_key(app_client: AppClient) -> None:
    client = app_client(**KEYED)
    paths = create_app(Settings(store="memory")).openapi()["paths"].keys() | {"/nothing", "/docs/static"}
    for path in paths - PROBES:
        for method in ("GET", "POST", "DELETE", "PUT", "OPTIONS", "HEAD"):
            response = client.request(method, path)
            assert response.status_code == 401, (method, path)
            assert response.headers["www-authenticate"] == REALM
    for path in PROBES:
        assert client.get(path).status_code in (200, 503)  # on a busy machine it takes a while until it is ready


@pytest.mark.parametrize(
    "path",
    ["/", "/nothing", "/healthz/", "//healthz", "/healthz/../ops", "/healthz%2f", "/HEALTHZ", "/docs/../ops",
     "/metrics", "/docs/", "/docs/static", "/healthz;/ops", "/grad?access_token=" + TOKEN, "/ops?key=" + TOKEN],
)  # fmt: skip
def test_what_looks_like_an_open_path_is_none(app_client: AppClient, path: str) -> None:
    response = app_client(**KEYED).get(path)
    assert problem(response)["code"] == "unauthorized"


def test_files_of_the_page_lead_to_no_others(app_client: AppClient) -> None:
    client = app_client(**KEYED)
    for path in (
        "../core.py",
        "..%2fcore.py",
        "%2e%2e/core.py",
        "../../../../etc/passwd",
        "/etc/passwd",
        "..\\core.py",
    ):
        assert client.get(f"/docs/static/{path}").status_code in (401, 404), path


def test_docs_and_metrics_are_open_by_setting(app_client: AppClient) -> None:
    docs = ("/docs", "/openapi.json", "/docs/static/swagger-ui.css")
    shown, hidden = app_client(**KEYED), app_client(**KEYED, docs_open=False, metrics_open=True)
    assert [shown.get(path).status_code for path in docs] == [200] * 3
    assert [hidden.get(path).status_code for path in docs] == [401] * 3
    assert [hidden.get(path, headers=bearer(TOKEN)).status_code for path in docs] == [200] * 3
    assert shown.get("/metrics").status_code == 401
    assert hidden.get("/metrics").status_code != 401


WRONG: dict[str, Any] = {
    "unknown": [b"Bearer " + new_token().encode()],
    "the name": [b"Bearer alice"],
    "the hash": [b"Bearer " + ALICE.digest.hex().encode()],
    "the bytes of the hash": [b"Bearer " + ALICE.digest.replace(b"\n", b"").replace(b"\r", b"")],
    "cut short": [b"Bearer " + TOKEN[:-1].encode()],
    "longer": [f"Bearer {TOKEN}=".encode()],
    "in capitals": [f"Bearer {TOKEN.upper()}".encode()],
    "empty": [b"Bearer "],
    "no token": [b"Bearer"],
    "nothing": [b""],
    "another scheme": [f"Basic {TOKEN}".encode()],
    "no scheme": [TOKEN.encode()],
    "two tokens": [f"Bearer {TOKEN} {OTHER}".encode()],
    "a list": [f"Bearer {TOKEN}, Bearer {OTHER}".encode()],
    "quoted": [f'Bearer "{TOKEN}"'.encode()],
    "no space": [f"Bearer{TOKEN}".encode()],
    "not ASCII": ["Bearer ключ🔑".encode()],
    "not UTF-8": [b"Bearer \xff\xfe"],
    "long": [b"Bearer " + b"q" * 10_000],
    "twice the same": [f"Bearer {TOKEN}".encode()] * 2,
    "two headers": [f"Bearer {TOKEN}".encode(), f"Bearer {OTHER}".encode()],
    "a wrong one first": [b"Basic YTpi", f"Bearer {TOKEN}".encode()],
}


@pytest.mark.parametrize("values", WRONG.values(), ids=WRONG)
def test_a_wrong_key_is_refused_and_not_told_how_it_is_wrong(app_client: AppClient, values: list[bytes]) -> None:
    client = app_client(**KEYED)
    response = client.get("/ops", headers=[(b"authorization", value) for value in values])
    found = problem(response)
    assert (found["code"], found["status"]) == ("unauthorized", 401)
    assert response.headers["www-authenticate"] == f'{REALM}, error="invalid_token"'
    assert found["detail"] == problem(client.get("/ops", headers=bearer("q")))["detail"]
    assert not any(each in response.text for each in (TOKEN, OTHER, "alice", "bob"))


def test_who_sends_none_is_told_how(app_client: AppClient) -> None:
    response = post(app_client(**KEYED), "/grad", CUBE)
    found = problem(response)
    assert (found["code"], found["instance"]) == ("unauthorized", "/grad")
    assert "Authorization: Bearer" in found["detail"]
    assert response.headers["www-authenticate"] == REALM


def test_a_key_in_a_url_or_a_body_is_none(app_client: AppClient) -> None:
    client = app_client(**KEYED)
    assert client.get("/ops", params={"access_token": TOKEN}).status_code == 401
    assert client.get("/ops", headers={"Cookie": f"access_token={TOKEN}", "X-API-Key": TOKEN}).status_code == 401
    assert client.post("/grad", data={"access_token": TOKEN}).status_code == 401
    assert client.get(f"http://alice:{TOKEN}@in-process/ops").status_code == 401


def test_the_document_says_which_routes_need_a_key(app_client: AppClient) -> None:
    document = app_client(**KEYED).get("/openapi.json").json()
    openapi_spec_validator.validate(document)
    (name, scheme), *more = document["components"]["securitySchemes"].items()
    assert (scheme["type"], scheme["scheme"], more) == ("http", "bearer", [])
    assert document["security"] == [{name: []}]
    open_ones = {
        path for path, item in document["paths"].items() for each in item.values() if each.get("security") == []
    }
    assert open_ones == PROBES & document["paths"].keys()
    metrics = app_client(**KEYED, metrics_open=True).get("/openapi.json").json()["paths"].get("/metrics", {})
    assert all(each["security"] == [] for each in metrics.values())


def test_what_needs_a_key_is_kept_by_no_cache_between(app_client: AppClient) -> None:
    """A shared cache would give what is public to clients without a key (RFC 9111, section 3.5)."""
    client = app_client(**KEYED)
    client.headers.update(bearer(TOKEN))
    path = f"/graphs/{ask(client, '/graphs', {'expression': 'x'})['id']}"
    first = client.get(path)
    again = client.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304
    for each in (first, again, client.get(f"{path}/graph.svg")):
        assert each.headers["cache-control"].startswith("private,")


class Seen:
    """An application that notes whose requests it is given."""

    def __init__(self) -> None:
        self.clients: list[Client] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.clients.append(scope[CLIENT])


def client_of(settings: Settings, path: str = "/grad", peer: Any = ("192.0.2.7", 9), token: str = "") -> Client:
    seen = Seen()
    headers = [(b"authorization", f"Bearer {token}".encode())] if token else []
    scope = {"type": "http", "path": path, "client": peer, "headers": headers}
    asyncio.run(Guard(seen, settings, Keys(settings))(scope, None, None))  # type: ignore[arg-type]
    return seen.clients[0]


def test_the_client_has_the_name_and_limits_of_its_key() -> None:
    settings = Settings(**KEYED)
    assert client_of(settings, token=TOKEN) == Client("alice")
    assert client_of(settings, token=OTHER) == Client("bob", 3, 0.5)
    assert client_of(settings, "/healthz") == Client("192.0.2.7")
    assert client_of(Settings()).name == "192.0.2.7"
    assert client_of(Settings(), peer=None).name == "local"


def test_the_limits_of_a_key_hold_for_its_holder_alone(app_client: AppClient) -> None:
    slow = Key.of("alice", TOKEN, {"rate": 1e-9})
    client = app_client(keys=f"{slow.line}; {BOB.line}")
    body = {"expression": "sum(sin(linspace(0, 1, 100000) * x))", "inputs": {"x": 1}}
    ask(client, "/grad", body, headers=bearer(TOKEN))
    response = post(client, "/grad", body, headers=bearer(TOKEN))
    found = problem(response)
    assert (found["code"], found["status"]) == ("rate_limited", 429)
    assert "alice" in found["detail"] and int(response.headers["retry-after"]) > 0
    ask(client, "/grad", body, headers=bearer(OTHER))


ADDRESSES = {
    "127.0.0.1": "127.0.0.1",
    "::1": "::1",
    "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64",
    "2001:db8:1:2::9": "2001:db8:1:2::/64",
    "::ffff:192.0.2.7": "192.0.2.7",
    "testclient": "unknown",
    "q" * 1000: "unknown",
    "": "unknown",
}


@pytest.mark.parametrize(("host", "name"), ADDRESSES.items())
def test_a_client_without_a_key_is_its_address(host: str, name: str) -> None:
    """An IPv6 client has 2**64 addresses to itself, and is one all the same."""
    assert client_at(host).name == name


def test_tokens_are_long_and_never_the_same() -> None:
    made = {new_token() for _ in range(1000)}
    assert len(made) == 1000
    assert all(len(token) == len("gw_") + 43 for token in made)


BROKEN = {
    "a token": (TOKEN, "line 1"),
    "a name and its token": (f"alice {TOKEN}", "line 1"),
    "no name": (f"sha256:{'0' * 64}", "line 1"),
    "a short hash": (f"{BOB.line}\nalice sha256:00", "line 2"),
    "another hash": (f"alice md5:{'0' * 64}", "sha256"),
    "capitals": (f"alice sha256:{'A' * 64}", "line 1"),
    "a name with a slash": (f"../alice sha256:{'0' * 64}", "line 1"),
    "a long name": (f"{'q' * 65} sha256:{'0' * 64}", "line 1"),
    "an unknown option": (f"{ALICE.line} speed=3", "at_once"),
    "an option of nothing": (f"{ALICE.line} at_once=0", "at_once"),
    "an option of no number": (f"{ALICE.line} rate=nan", "rate"),
    "an endless option": (f"{ALICE.line} rate=inf", "rate"),
    "half of one": (f"{ALICE.line} at_once=1.5", "at_once"),
    "the same name twice": (f"{ALICE.line}\n{Key.of('alice', OTHER, {}).line}", "alice"),
    "the same token twice": (f"{ALICE.line}\n{Key.of('carol', TOKEN, {}).line}", "carol"),
}


@pytest.mark.parametrize(("text", "said"), BROKEN.values(), ids=BROKEN)
def test_what_is_wrong_in_a_file_is_said_and_no_token_repeated(text: str, said: str) -> None:
    with pytest.raises(KeysUnusable) as raised:
        parsed(text, "the file")
    assert said in str(raised.value)
    assert TOKEN not in str(raised.value)


def test_keys_come_and_go_with_their_file(keys_file: Path) -> None:
    keys = keys_of(keys_file)
    carol = new_token()
    assert keys.find(carol.encode()) is None
    keys_file.write_text(f"{ALICE.line}\n{Key.of('carol', carol, {}).line}\n")
    assert keys.find(carol.encode()) is not None
    assert keys.find(OTHER.encode()) is None
    replaced = keys_file.with_name("new")
    replaced.write_text(BOB.line)
    replaced.rename(keys_file)
    assert [keys.find(token.encode()) is not None for token in (TOKEN, OTHER, carol)] == [False, True, False]
    keys_file.write_text("")
    assert keys.find(OTHER.encode()) is None


def test_a_change_of_the_same_size_in_the_same_moment_is_seen(keys_file: Path) -> None:
    """Times of files are no finer than the kernel's tick."""
    keys = keys_of(keys_file)
    before = keys_file.stat()
    keys_file.write_text(keys_file.read_text().replace(BOB.digest.hex(), "0" * 64))
    os.utime(keys_file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert keys.find(OTHER.encode()) is None


def test_a_file_that_stays_as_it_is_is_not_read_again(keys_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.utime(keys_file, (1, 1))
    keys = keys_of(keys_file)
    monkeypatch.setattr(module, "read_file", None)
    assert keys.find(TOKEN.encode()) is not None


def test_the_file_is_looked_at_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    path = tmp_path / "keys"
    path.write_text(ALICE.line)
    keys = keys_of(path)
    path.write_text("")
    now += 0.9
    assert keys.find(TOKEN.encode()) is not None
    now += 0.2
    assert keys.find(TOKEN.encode()) is None


def _with(content: bytes) -> Any:
    return lambda path: path.write_bytes(content)


def _of_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _of_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


MISHAPS: dict[str, tuple[Any, str]] = {
    "broken": (_with(b"alice sha256:00\n"), "line 1"),
    "cut short": (_with(ALICE.line[:-3].encode()), "line 1"),
    "not text": (_with(b"\xff\xfe\x00"), "UTF-8"),
    "huge": (_with(b"#" * (2 << 20)), "larger"),
    "gone": (Path.unlink, "cannot be read"),
    "a directory": (_of_a_directory, "regular"),
    "a pipe": (_of_a_pipe, "regular"),
}


@pytest.mark.parametrize(("mishap", "said"), MISHAPS.values(), ids=MISHAPS)
def test_a_version_that_cannot_be_read_changes_nothing_and_is_logged_once(
    keys_file: Path, caplog: pytest.LogCaptureFixture, mishap: Any, said: str
) -> None:
    keys = keys_of(keys_file)
    mishap(keys_file)
    with caplog.at_level(logging.ERROR):
        assert all(keys.find(TOKEN.encode()) is not None for _ in range(5))
    (record,) = caplog.records
    assert said in record.getMessage() and str(keys_file) in record.getMessage()
    keys_file.rmdir() if keys_file.is_dir() else keys_file.unlink(missing_ok=True)
    keys_file.write_text(BOB.line)
    assert keys.find(TOKEN.encode()) is None
    assert keys.find(OTHER.encode()) is not None


@pytest.mark.parametrize(("mishap", "said"), MISHAPS.values(), ids=MISHAPS)
def test_at_the_start_it_is_an_error(keys_file: Path, mishap: Any, said: str) -> None:
    mishap(keys_file)
    with pytest.raises(KeysUnusable, match=said):
        keys_of(keys_file)


def test_the_environment_and_the_file_add_up(keys_file: Path) -> None:
    carol = new_token()
    keys = keys_of(keys_file, keys=Key.of("carol", carol, {}).line)
    assert all(keys.find(token.encode()) is not None for token in (TOKEN, OTHER, carol))
    with pytest.raises(KeysUnusable, match="bob"):
        keys_of(keys_file, keys=Key.of("bob", carol, {}).line)


class Done(NamedTuple):
    """What a command came to."""

    code: Any
    stdout: str
    stderr: str


Command = Callable[..., Done]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`python -m app` with these words, but in this process, because to start one takes seconds."""

    def do(*words: str, **environment: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["app", *words])
        monkeypatch.setattr(uvicorn.Server, "run", None)  # which no command should come to
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        code: Any = 0
        try:
            main()
        except SystemExit as end:
            code = end.code
        said = capsys.readouterr()
        return Done(code, said.out, said.err + (code if isinstance(code, str) else ""))

    return do


def test_keys_are_made_listed_and_revoked(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    made = command("keys", "new", "alice", "--at-once", "3", GRADWIRE_KEYS_FILE=str(path))
    token = made.stdout.strip()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert token not in path.read_text() and token not in made.stderr
    inode = path.stat().st_ino
    path.write_text("# ours\n" + path.read_text().rstrip("\n"))  # by an editor that ends files without a newline
    second = command("keys", "--file", str(path), "new", "bob", "--rate", "1000000").stdout.strip()
    keys = keys_of(path)
    assert keys.find(token.encode()) == Client("alice", 3)
    assert keys.find(second.encode()) == Client("bob", rate=1_000_000)
    assert command("keys", "--file", str(path), "list").stdout == "alice at_once=3\nbob rate=1000000.0\n"
    assert command("keys", "--file", str(path), "revoke", "alice").code == 0
    left = keys_of(path)
    assert (left.find(token.encode()), left.find(second.encode()) is not None) == (None, True)
    assert path.read_text().startswith("# ours\n")
    assert path.stat().st_ino == inode


def test_without_a_file_the_line_is_for_the_environment(command: Command) -> None:
    made = command("keys", "new", "alice")
    keys = Keys(Settings(keys=made.stderr.strip().rpartition(": ")[2]))
    assert keys.find(made.stdout.strip().encode()) is not None


REFUSED = {
    "a name that is there": ("new", "bob"),
    "a name of two words": ("new", "b c"),
    "a name that is a path": ("new", "../b"),
    "no name": ("new", ""),
    "a limit of nothing": ("new", "carol", "--at-once", "0"),
    "a limit of no number": ("new", "carol", "--rate", "nan"),
    "what is not there": ("revoke", "carol"),
}


@pytest.mark.parametrize("words", REFUSED.values(), ids=REFUSED)
def test_what_makes_no_sense_changes_nothing(command: Command, keys_file: Path, words: tuple[str, ...]) -> None:
    before = keys_file.read_bytes()
    done = command("keys", "--file", str(keys_file), *words)
    assert done.code != 0 and done.stderr.strip() and not done.stdout
    assert keys_file.read_bytes() == before


@pytest.mark.parametrize("words", [("list",), ("revoke", "a"), ("new", "a")])
def test_a_file_that_is_not_there_is_said_to_be_so(command: Command, tmp_path: Path, words: tuple[str, ...]) -> None:
    done = command("keys", "--file", str(tmp_path / "no" / "keys"), *words)
    assert isinstance(done.code, str)
    assert "No such file" in done.stderr


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("GRADWIRE_KEYS_FILE", "/nowhere/keys", "/nowhere/keys cannot be read"),
        ("GRADWIRE_KEYS", f"alice {TOKEN}", "GRADWIRE_KEYS, line 1"),
        ("GRADWIRE_FORWARDED", "proxy.example", "forwarded"),
        ("GRADWIRE_CORS_ORIGINS", "https://example.org/", "cors_origins"),
    ],
)
def test_a_service_whose_keys_are_wrong_does_not_start(command: Command, name: str, value: str, said: str) -> None:
    done = command(**{name: value})
    assert isinstance(done.code, str)
    assert said in done.stderr
    assert TOKEN not in done.stderr


def test_a_running_service_learns_of_keys_within_a_second(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    token = command("keys", "--file", str(path), "new", "alice").stdout.strip()
    with serving(tmp_path / "log", GRADWIRE_KEYS_FILE=str(path)) as (url, _):

        def get(token: str) -> int:
            return httpx.get(f"{url}/ops/sin", headers=bearer(token)).status_code

        assert get(token) == 200
        other = command("keys", "--file", str(path), "new", "bob").stdout.strip()
        assert command("keys", "--file", str(path), "revoke", "alice").code == 0
        time.sleep(module.LOOKING_SECONDS + 0.1)
        assert (get(token), get(other)) == (401, 200)
        assert other not in (tmp_path / "log").read_text()


FORWARDED = {
    "nobody is believed": ("", "127.0.0.1", "127.0.0.1"),
    "the proxy is": ("127.0.0.1", "127.0.0.1", "203.0.113.9"),
    "its network is": ("127.0.0.0/8, ::1", "127.0.0.1", "203.0.113.9"),
    "another is not": ("10.0.0.0/8", "192.0.2.1", "192.0.2.1"),
    "all are": ("*", "192.0.2.1", "198.51.100.1"),
}


@pytest.mark.parametrize(("trusted", "peer", "name"), FORWARDED.values(), ids=FORWARDED)
def test_forwarded_addresses_are_believed_of_those_that_are_named(
    monkeypatch: pytest.MonkeyPatch, trusted: str, peer: str, name: str
) -> None:
    """uvicorn by itself would believe whoever is on this machine. What the client itself wrote, the first, is not."""
    settings = Settings(store="memory", forwarded=trusted)
    config = config_of(settings, create_app(settings))
    config.load()
    forwarded = [(b"x-forwarded-for", b"198.51.100.1, 203.0.113.9")]
    scope = {"type": "http", "method": "GET", "path": "/healthz", "raw_path": b"/healthz", "query_string": b"",
             "client": (peer, 9), "headers": forwarded}  # fmt: skip

    async def nothing(*message: Any) -> Any:
        return {"type": "http.request"}

    asyncio.run(config.loaded_app(scope, nothing, nothing))  # type: ignore[arg-type]
    assert scope[CLIENT].name == name  # type: ignore[union-attr]
