"""The rows, in the order of the table. To add one is to add a block to one of these modules."""

from benchmarks.rows import engine, growth, http, memory, probes  # noqa: F401 - each enters its rows
from benchmarks.timing import ROWS as ROWS
