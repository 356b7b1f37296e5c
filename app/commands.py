"""`python -m app keys …`: making, listing and revoking keys.

The file is written in place, under a lock: it keeps its owner, mode and inode, so that it may be mounted by itself. A
service that reads half of a change reads it again within a second.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from app.services.keys import NAME, OPTIONS, Key, KeysUnusable, new_token, parsed, read_file
from app.settings import Settings


def arguments() -> argparse.Namespace:
    """What the command line says; without a command the service starts."""
    parser = argparse.ArgumentParser(
        "python -m app", description="Serve, with settings of the environment (GRADWIRE_*)."
    )
    parser.set_defaults(run=None)
    keys = parser.add_subparsers(title="else").add_parser("keys", help="make, list and revoke keys")
    keys.add_argument("--file", type=Path, help="the keys file; else GRADWIRE_KEYS_FILE")
    actions = keys.add_subparsers(required=True, metavar="{new,list,revoke}")
    new = _action(actions.add_parser("new", help="make a key, and print its token, which is kept nowhere"), _new)
    for option, kind in OPTIONS.items():
        new.add_argument(f"--{option.replace('_', '-')}", type=kind, help=f"{option} of this key, not the setting's")
    _action(actions.add_parser("revoke", help="make a key worthless, within a second"), _revoke)
    actions.add_parser("list", help="names and limits of all keys").set_defaults(run=_list)
    return parser.parse_args()


def _action(parser: argparse.ArgumentParser, run: Callable[..., None]) -> argparse.ArgumentParser:
    parser.add_argument("name", metavar="NAME")
    parser.set_defaults(run=run)
    return parser


def run(chosen: argparse.Namespace, settings: Settings) -> None:
    """Do what the command line says. Raises KeysUnusable."""
    chosen.run(chosen, chosen.file or settings.keys_file)


def _new(chosen: argparse.Namespace, path: Path | None) -> None:
    if not NAME.fullmatch(chosen.name):
        raise KeysUnusable("a name is of letters, digits, and after the first of them _ . or -: 64 at most")
    options = {name: getattr(chosen, name) for name in OPTIONS if getattr(chosen, name) is not None}
    token = new_token()
    key = Key.of(chosen.name, token, options)
    parsed(key.line, f"the key {key.name}")
    if path is None:
        print(f"No keys file is set. For GRADWIRE_KEYS, where `;` stands between keys: {key.line}", file=sys.stderr)
    else:
        with _changing(path, os.O_CREAT) as lines:
            lines.append(key.line)
        print(f"{key.name} is in {path}. This is its token, which is not kept:", file=sys.stderr)
    print(token)


def _revoke(chosen: argparse.Namespace, path: Path | None) -> None:
    with _changing(_there(path)) as lines:
        left = [line for line in lines if line.partition("#")[0].split()[:1] != [chosen.name]]
        if left == lines:
            raise KeysUnusable(f"no key of {path} has the name {chosen.name}")
        lines[:] = left


def _list(chosen: argparse.Namespace, path: Path | None) -> None:
    for key in parsed(read_file(_there(path))[0], f"the keys file {path}"):
        print(key.name, *(f"{name}={value}" for name, value in key.options.items()))


def _there(path: Path | None) -> Path:
    if path is None:
        raise KeysUnusable("no keys file is set: GRADWIRE_KEYS_FILE, or --file")
    return path


@contextmanager
def _changing(path: Path, flags: int = 0) -> Iterator[list[str]]:
    """The lines of a keys file, which is written as they are in the end, if that is a keys file still."""
    try:
        with os.fdopen(os.open(path, os.O_RDWR | flags, 0o600), "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            text = read_file(path)[0]
            parsed(text, f"the keys file {path}")
            lines = text.splitlines()
            yield lines
            parsed("\n".join(lines), f"the keys file {path}")
            _write(file, "".join(f"{line}\n" for line in lines).encode())
    except OSError as error:
        raise KeysUnusable(f"the keys file {path} cannot be written: {error.strerror}") from error


def _write(file: BinaryIO, text: bytes) -> None:
    """In this order, because a reader takes what is too long for broken, and what is too short for the whole."""
    file.seek(0)
    file.write(text)
    file.truncate()
    file.flush()
    os.fsync(file.fileno())
