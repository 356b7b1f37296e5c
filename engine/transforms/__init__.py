"""Transforms read a graph and emit a graph. They never touch arrays, and they know no op by its name."""
