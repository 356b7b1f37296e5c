"""Keys: who may ask, by the hash of a token.

A key is a line, of the keys file or of GRADWIRE_KEYS:

    alice sha256:9f86d081… at_once=4 rate=2.5

Tokens are 256 random bits, so that a fast hash is right: slow ones (bcrypt, Argon2) make up for passwords that can be
guessed, and nobody guesses these, however fast each guess is. For the same reason they need no salt. A token is looked
up by its hash; how long that takes tells something of the hash of what was sent, which its sender knows already.

The file is looked at again while the service runs, so that keys come and go without a restart. A version that cannot
be read changes nothing: whoever had a key keeps it, and the log says what is wrong. No message repeats what stands in
a line, because it may be a token that somebody put there by mistake.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from app.services.tasks import Client
from app.settings import Settings

PREFIX = "gw_"
"""How tokens begin, so that people and scanners for secrets know one where they see it."""
TOKEN_BYTES = 32
ALGORITHM = "sha256:"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}")
DIGEST = re.compile(r"[0-9a-f]{64}")
OPTIONS: dict[str, Callable[[str], float]] = {"at_once": int, "rate": float}
"""What may follow the hash: limits of a Client, and how each is read."""
LINE = f"NAME {ALGORITHM}HASH, then {' or '.join(f'{name}=NUMBER' for name in OPTIONS)} or nothing"
MOST_BYTES = 1 << 20
LOOKING_SECONDS = 1.0
"""How often the file is looked at: how long a key lives after it was revoked."""
SETTLED_SECONDS = 2.0
"""A file that was written just now may change again without its time telling so."""

logger = logging.getLogger("gradwire")


class KeysUnusable(Exception):
    """The keys cannot be read; the message says which and why."""


class Key(NamedTuple):
    """A key, as its line has it."""

    name: str
    digest: bytes
    options: dict[str, Any]

    @classmethod
    def of(cls, name: str, token: str, options: dict[str, Any]) -> Key:
        return cls(name, digest_of(token.encode()), options)

    @property
    def line(self) -> str:
        return " ".join(
            [self.name, ALGORITHM + self.digest.hex(), *(f"{name}={value}" for name, value in self.options.items())]
        )

    @property
    def client(self) -> Client:
        return Client(self.name, **self.options)


def digest_of(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


def new_token() -> str:
    return PREFIX + secrets.token_urlsafe(TOKEN_BYTES)


def parsed(text: str, source: str) -> list[Key]:
    """The keys of a text. Raises KeysUnusable with the first line that is wrong."""
    keys: list[Key] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if words:
            keys.append(_key(words, f"{source}, line {number}"))
    _once(keys, source)
    return keys


def _key(words: list[str], where: str) -> Key:
    name, digest, *options = words if len(words) > 1 else (*words, "")
    if not NAME.fullmatch(name) or not digest.startswith(ALGORITHM) or not DIGEST.fullmatch(digest[len(ALGORITHM) :]):
        raise KeysUnusable(f"{where}: expected {LINE}; `python -m app keys new NAME` makes such a line")
    return Key(name, bytes.fromhex(digest[len(ALGORITHM) :]), dict(_option(each, where) for each in options))


def _option(word: str, where: str) -> tuple[str, float]:
    name, _, number = word.partition("=")
    try:
        value = OPTIONS[name](number)
    except (KeyError, ValueError):
        raise KeysUnusable(f"{where}: expected {LINE}") from None
    if not 0 < value < float("inf"):
        raise KeysUnusable(f"{where}: {name} should be above 0")
    return name, value


def _once(keys: Iterable[Key], source: str) -> None:
    """A name or a token that comes twice is a mistake: to revoke one would leave the other."""
    names: set[str] = set()
    digests: set[bytes] = set()
    for key in keys:
        if key.name in names or key.digest in digests:
            what = "two keys have the name" if key.name in names else "another key has the token of"
            raise KeysUnusable(f"{source}: {what} {key.name}")
        names.add(key.name)
        digests.add(key.digest)


def read_file(path: Path) -> tuple[str, os.stat_result]:
    """The text of a keys file, and what it was when it was read. Raises KeysUnusable."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # to open a pipe would wait for its writer
            raise KeysUnusable(f"the keys file {path} is no regular file")
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)
            seen = os.fstat(file.fileno())
    except OSError as error:
        raise KeysUnusable(f"the keys file {path} cannot be read: {error.strerror}") from error
    if len(text) > MOST_BYTES:
        raise KeysUnusable(f"the keys file {path} is larger than {MOST_BYTES} bytes")
    try:
        return text.decode(), seen
    except UnicodeDecodeError:
        raise KeysUnusable(f"the keys file {path} is not UTF-8") from None


class Keys:
    """The keys of the settings, and of their file as it is now."""

    def __init__(self, settings: Settings) -> None:
        self.is_on = settings.keyed
        self._path = settings.keys_file
        self._fixed = parsed(settings.keys.replace(";", "\n"), "GRADWIRE_KEYS")
        self._clients: dict[bytes, tuple[bytes, Client]] = {}
        self._seen: tuple[int, ...] = ()
        self._text = ""
        self._fault = ""
        self._take(self._fixed)
        self._next = time.monotonic() + LOOKING_SECONDS
        if self._path is not None:
            self._read(self._path)

    def find(self, token: bytes) -> Client | None:
        """Whose token this is."""
        self._look()
        digest = digest_of(token)
        known, client = self._clients.get(digest, (b"", None))
        return client if hmac.compare_digest(known, digest) else None

    def _look(self) -> None:
        """See, once in a while, whether the file is another."""
        now = time.monotonic()
        if self._path is None or now < self._next:
            return
        self._next = now + LOOKING_SECONDS
        try:
            if self._is_new(self._path):
                self._read(self._path)
        except KeysUnusable as error:
            self._complain(f"{error}; the keys that were read before stay as they are")

    def _is_new(self, path: Path) -> bool:
        try:
            return _mark(path.stat()) != self._seen
        except OSError as error:
            self._seen = ()
            raise KeysUnusable(f"the keys file {path} cannot be read: {error.strerror}") from error

    def _read(self, path: Path) -> None:
        text, seen = read_file(path)
        self._seen = _mark(seen) if time.time() - seen.st_mtime > SETTLED_SECONDS else ()
        if text == self._text and not self._fault:
            return
        keys = [*self._fixed, *parsed(text, f"the keys file {path}")]
        _once(keys, f"GRADWIRE_KEYS and the keys file {path}")
        self._take(keys)
        self._text, self._fault = text, ""
        logger.info("%d keys, with those of %s", len(keys), path)

    def _take(self, keys: Iterable[Key]) -> None:
        self._clients = {key.digest: (key.digest, key.client) for key in keys}

    def _complain(self, fault: str) -> None:
        """Say what is wrong, once."""
        if fault != self._fault:
            self._fault = fault
            logger.error("%s", fault)


def _mark(seen: os.stat_result) -> tuple[int, ...]:
    """What changes where a file does."""
    return seen.st_mtime_ns, seen.st_ino, seen.st_size
