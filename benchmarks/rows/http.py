"""HTTP rows: one request after another over one kept connection, against bare routes under the same server settings."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Any

import numpy as np
import orjson

from benchmarks.rows.engine import SCALARS, _scalars, arrays_of, question, random, warm_run
from benchmarks.servers import Connection, serving
from benchmarks.timing import BY_HAND, OURS, Contender, Row, enter
