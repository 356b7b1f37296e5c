"""The figures of several processes as one: each writes its own into a directory, and reads those of the others.

A file is as old as SHARING_SECONDS at most. That of a process which has ended is taken over by the next one that
starts; until then its counters are still read, but not what it was busy with.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from app.services.figures import BY_NAME, GAUGE, Figures, Labels, Number, Sample, merged

SHARING_SECONDS = 1.0
ENDING = ".figures"
Samples = list[tuple[str, tuple[str, ...], float | list[float]]]

logger = logging.getLogger("gradwire")


class Shared:
    """The figures of this process, among those of others in `directory`, if there is one."""

    def __init__(self, figures: Figures, directory: Path | None = None) -> None:
        self.figures = figures
        self._directory = directory
        self._inherited: list[Sample] = []

    def open(self, directory: Path) -> None:
        """Be one of the processes that share this directory."""
        directory.mkdir(parents=True, exist_ok=True)
        self._own = directory / f"{os.getpid()}{ENDING}"
        self._inherit(directory)
        self.write()

    def all(self) -> dict[str, dict[Labels, Number]]:
        """The figures of all processes, added up."""
        return merged([self._now(), *self._of_others()])

    async def __aenter__(self) -> Shared:
        if self._directory is not None:
            self.open(self._directory)
            self._writing = asyncio.create_task(self._keep_writing())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._directory is not None:
            self._writing.cancel()
            self.write()

    async def _keep_writing(self) -> None:
        while True:
            self.write()
            await asyncio.sleep(SHARING_SECONDS)

    def write(self) -> None:
        """Let the others know. A reader finds the file as it was or as it is, never half of it."""
        new = self._own.with_suffix(".new")
        try:
            new.write_bytes(msgspec.msgpack.encode(self._now()))
            new.replace(self._own)
        except OSError as error:
            logger.warning("figures could not be shared with other processes: %s", error)

    def _now(self) -> list[Sample]:
        return [*self.figures.samples(), *self._inherited]

    def _inherit(self, directory: Path) -> None:
        """Go on from the counts of a process that ended. Of several that start only one can move its file."""
        for path in directory.glob(f"*{ENDING}"):
            if path == self._own or not _lives(path):
                with suppress(FileNotFoundError):
                    path.rename(self._own)
                    self._inherited = list(_counters(_read(self._own)))
                    return

    def _of_others(self) -> Iterator[Iterable[Sample]]:
        for path in self._directory.glob(f"*{ENDING}") if self._directory else ():
            if path != self._own:
                found = _read(path)
                yield found if _lives(path) else _counters(found)


def _read(path: Path) -> Samples:
    try:
        return msgspec.msgpack.decode(path.read_bytes(), type=Samples)
    except FileNotFoundError:  # taken over since the directory was listed
        return []


def _counters(samples: Iterable[Sample]) -> Iterator[Sample]:
    return (sample for sample in samples if sample[0] in BY_NAME and BY_NAME[sample[0]].kind != GAUGE)


def _lives(path: Path) -> bool:
    """Whether the process still runs that a file is named after."""
    try:
        os.kill(int(path.stem), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
