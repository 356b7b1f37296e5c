"""Settings, from the environment, read once and frozen: GRADWIRE_PORT=9000, GRADWIRE_LIMITS__NODES=5000, …

The engine's limits are a group of their own, under their own names; what else bounds a request is here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from engine.limits import Limits


def _positive(limits: Limits) -> Limits:
    for name, most in asdict(limits).items():
        if most <= 0:
            raise ValueError(f"the limit {name} should be above 0, got {most}")
    return limits


def _listed(value: Any) -> Any:
    """A list as the environment has it: with commas."""
    return tuple(each.strip() for each in value.split(",") if each.strip()) if isinstance(value, str) else value


def _origin(value: str) -> str:
    parts = urlsplit(value)
    if value != "*" and (not parts.scheme or not parts.netloc or value != f"{parts.scheme}://{parts.netloc}".lower()):
        raise ValueError("an origin is https://example.org, or * for all: in lower case, with nothing behind it")
    return value


def _name(value: str) -> str:
    if value.endswith("]") != value.startswith("[") or (":" in value and not value.startswith("[")):
        raise ValueError("a name is localhost, 127.0.0.1 or [::1]: without a port")
    return value.lower()


def _network(value: str) -> str:
    return value if value == "*" else str(ip_network(value))


Listed = BeforeValidator(_listed)
Origins = Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], NoDecode, Listed]
Networks = Annotated[tuple[Annotated[str, AfterValidator(_network)], ...], NoDecode, Listed]
Names = Annotated[tuple[Annotated[str, AfterValidator(_name)], ...], NoDecode, Listed]
File = Annotated[Path | None, BeforeValidator(lambda value: value or None)]


class Settings(BaseSettings):
    """Every setting of the service; the environment variable is GRADWIRE_ and the name in capitals."""

    model_config = SettingsConfigDict(
        env_prefix="GRADWIRE_", env_nested_delimiter="__", frozen=True, use_attribute_docstrings=True
    )

    host: str = "127.0.0.1"
    """Address to listen on."""

    port: int = Field(8000, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""

    open: bool = False
    """Listen on addresses that others can reach although no keys are set."""

    keys_file: File = None
    """A file of keys, looked at again while the service runs; `python -m app keys new NAME` writes one."""

    keys: str = Field("", repr=False)
    """Keys themselves, as the lines of such a file, with `;` between them."""

    docs_open: bool = True
    """Where keys are set: /docs and /openapi.json need none."""

    metrics_open: bool = False
    """Where keys are set: /metrics needs none."""

    forwarded: Networks = ()
    """Addresses and networks of proxies, with commas, whose X-Forwarded-For is believed; `*` for all."""

    hosts: Names = ()
    """Names, with commas, by which clients may call the service (the header Host, without its port); empty for any.
    With names no page reaches the service on its reader's machine by a name of its own (DNS rebinding)."""

    cors_origins: Origins = ()
    """Origins, with commas, whose pages may use the service from a browser; `*` for all."""

    log_level: Literal["critical", "error", "warning", "info", "debug"] = "info"
    """Least severe messages that are logged; a request is info, or error where the service is to blame."""

    log_format: Literal["text", "json"] = "text"
    """The log as lines for eyes or as JSON objects; the image takes JSON."""

    log_requests: bool = True
    """Log a line for every request, without its query and its values."""

    figures_path: Path | None = None
    """Directory in which several processes share what they count; without one they make one of their own."""

    seconds: float = Field(30.0, gt=0)
    """Time for one request, from its body's arrival to its answer; `timeout` in a request may only lower it."""

    body_bytes: int = Field(64 << 20, gt=0)
    """Largest request body in JSON, in bytes; of a compressed one, when it is expanded."""

    msgpack_bytes: int = Field(256 << 20, gt=0)
    """Largest request body in MessagePack, likewise."""

    url_bytes: int = Field(8 << 10, gt=0)
    """Longest path and query of a URL, in bytes."""

    header_bytes: int = Field(16 << 10, gt=0)
    """Longest headers of a request together, in bytes."""

    headers: int = Field(100, gt=0)
    """Most headers of a request."""

    header_seconds: float = Field(10.0, gt=0)
    """Time for a request's headers to arrive, from its first byte on, or from the opening of a connection."""

    body_seconds: float = Field(30.0, gt=0)
    """Time for a request's body to arrive."""

    answer_pace: int = Field(4096, ge=0)
    """Bytes a second that a client must take of a long answer, looked at every GRADWIRE_BODY_SECONDS; slower ones are
    cut off."""

    framing_bytes: int = Field(1 << 20, gt=0)
    """Bytes of a chunked body that are not its content: sizes of chunks, and what stands around them."""

    answer_bytes: int = Field(256 << 20, gt=0)
    """Largest answer, in bytes of its tensors."""

    json_nesting: int = Field(64, gt=0)
    """Lists and objects within one another in a request."""

    body_values: int = Field(2_000_000, gt=0)
    """Values, lists and objects in a request that are read one by one. Long lists of floats are not; nor is base64."""

    inline_bytes: int = Field(2 << 10, ge=0)
    """Bodies up to this many bytes are worked on in the event loop; larger ones in a thread."""

    inline_nodes: int = Field(100, ge=0)
    """Graphs up to this many nodes, times the order of the call squared, are compiled in the event loop."""

    inline_seconds: float = Field(3e-4, ge=0)
    """Plans that take up to so many seconds, as estimated, run in the event loop: a thread costs almost as much."""

    thread_bytes: int = Field(32 << 20, ge=0)
    """Bodies up to this many bytes are worked on in a thread; larger ones in a worker process."""

    thread_nodes: int = Field(2_000, ge=0)
    """Graphs up to this many nodes, times the order of the call squared, are compiled in a thread; larger ones in a
    worker process."""

    run_threads: int = Field(0, ge=0)
    """Threads over which large elementwise work of one run is spread; 0 takes one for each core."""

    blas_threads: int = Field(1, ge=0)
    """Threads of BLAS for one product of matrices; 0 leaves it to BLAS. Above 1 they wait by spinning, which slows all
    that runs beside them, and last bits depend on their number."""

    workers: int = Field(1, ge=0)
    """Processes that serve, each with its own caches and threads; 0 is one per core. Above 1 the store is SQLite's."""

    threads: int = Field(4, gt=0)
    """Requests in threads at a time."""

    thread_call_seconds: float = Field(0.25, ge=0)
    """Plans in which no call takes longer, as estimated, may run in a thread, where nothing can interrupt a call."""

    thread_held_seconds: float = Field(0.03, ge=0)
    """Plans that hold the interpreter's lock no longer may, too; others would slow down all that the process does."""

    processes: int = Field(0, ge=0)
    """Worker processes, for what a thread could not be stopped at; 0 is one for each core."""

    worker_bytes: int = Field(4 << 30, gt=0)
    """Address space of a worker process, beyond what it begins with."""

    memory_bytes: int = Field(0, ge=0)
    """Memory that the requests of one serving process may plan to use together; 0 is its share of 60 % of the
    machine's, or of the container's."""

    queue: int = Field(64, ge=0)
    """Requests that wait for a thread or a worker process; more are sent away."""

    queue_seconds: float = Field(2.0, gt=0)
    """How long a request waits there."""

    client_requests: int = Field(8, gt=0)
    """Requests of one client that run or wait at a time, but for those that are done in the event loop.
    A key may have its own figure."""

    client_rate: float = Field(10.0, gt=0)
    """Seconds of computing that one client may ask for per second, with ten seconds' worth at once.
    A key may have its own figure."""

    store: Literal["sqlite", "memory"] = "sqlite"
    """Where registered graphs are kept: in a file that processes may share, or in the memory of this one."""

    store_path: Path = Path("var/graphs.sqlite3")
    """The file that they are kept in."""

    graphs: int = Field(10_000, gt=0)
    """Graphs that are registered at a time; those go that have not been used for longest."""

    graphs_bytes: int = Field(256 << 20, gt=0)
    """Bytes that registered graphs have together, as they were posted; likewise."""

    graphs_cached_bytes: int = Field(64 << 20, gt=0)
    """Memory for registered graphs that are ready to be computed with, in each serving process, and as much in its
    workers together; others are read again."""

    svg_parts: int = Field(10_000, gt=0)
    """Boxes and arrows of a graph that is drawn as SVG."""

    plan_cache_bytes: int = Field(256 << 20, ge=0)
    """Memory for plans of graphs that were asked for before, in bytes, in each serving process, and as much in its
    workers together; the least recently used go."""

    connections: int = Field(800, gt=0)
    """Connections open at a time, in each process. Past them idle ones are closed, and requests are told to come back;
    probes are answered."""

    keep_alive_seconds: int = Field(75, gt=0)
    """Idle connections are closed after this many seconds."""

    drain_seconds: float = Field(0.0, ge=0)
    """On SIGTERM, requests are taken for so many seconds more while `/readyz` says no, until load balancers notice."""

    grace_seconds: int = Field(30, gt=0)
    """After that, running requests have this many seconds to end; then they are answered with 503."""

    limits: Annotated[Limits, AfterValidator(_positive)] = Limits()
    """What one graph may cost: GRADWIRE_LIMITS__NODES and so on."""

    @property
    def keyed(self) -> bool:
        """Whether requests need a key."""
        return bool(self.keys_file or self.keys.strip())


def unknown(names: Iterable[str]) -> list[str]:
    """Names of environment variables that look like settings and are none: misspelt, or of another version."""
    prefix = str(Settings.model_config["env_prefix"])
    known = {prefix + name.upper() for name in Settings.model_fields}
    return sorted(name for name in names if name.startswith(prefix) and name.partition("__")[0] not in known)
