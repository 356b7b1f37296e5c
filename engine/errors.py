"""Everything the engine can refuse, as one tree.

    EngineError
    ├── InvalidTensor             data that is no tensor of its dtype and shape
    ├── InvalidGraph              a graph or an attribute value of the wrong form
    │   ├── GraphCycle
    │   ├── UnknownOp
    │   ├── UnknownAttribute
    │   └── ExpressionError       expression text that does not parse; knows line and column
    ├── UnknownName               an output, wrt, … that the graph does not have
    ├── MissingInput
    ├── ShapeMismatch
    ├── DtypeMismatch
    ├── GradOutputsRequired
    ├── NotDifferentiable
    ├── NotScalar
    ├── SingularMatrix            a kernel of linear algebra could not go on
    ├── NonFinite                 nan_policy "raise" met a NaN or an infinity
    ├── OutOfMemory               the machine has none left for a plan that the limits allow
    └── Breach                    knows the limit's name, its maximum and the actual figure
        ├── LimitExceeded
        └── DeadlineExceeded      raised by the caller's tick

`code` is stable and public. `detail` says what, where and what would be right. `node` is the id of the node to
blame; `line` and `column`, which count from 1, say where it stands in expression text. `pointer` is a JSON pointer into
the request for the fields of a question (/wrt/0), else *relative to what the engine was given*: a graph (/nodes/3), an
attribute; callers prefix it.
"""

from __future__ import annotations

LONGEST_STEP = 120
"""Characters of a name that a pointer repeats: what is longer is no name of ours, and not worth an echo."""
LONGEST_DETAIL = 500
"""Characters of what is said of an error, however long the lists are that it is about."""


def pointer_to(*steps: str | int) -> str:
    """A JSON pointer (RFC 6901) from names and positions."""
    return "".join("/" + str(step)[:LONGEST_STEP].replace("~", "~0").replace("/", "~1") for step in steps)


class EngineError(Exception):
    """A request that cannot be served, with a stable code."""

    code = "internal"

    def __init__(self, detail: str, *, node: str | None = None, pointer: str | None = None) -> None:
        detail = detail if len(detail) <= LONGEST_DETAIL else detail[: LONGEST_DETAIL - 1] + "…"
        super().__init__(detail)
        self.detail = detail
        self.node = node
        self.pointer = pointer
        self.line: int | None = None
        self.column: int | None = None
        self.place: str | None = None
        """Where it stands, if in a function: "function/node"."""


class InvalidTensor(EngineError):
    """The data is not a tensor of the dtype and shape that go with it."""

    code = "invalid_tensor"


class InvalidGraph(EngineError):
    """The graph, or a value in it, does not have the form of a graph."""

    code = "invalid_graph"


class GraphCycle(InvalidGraph):
    """Nodes that wait for each other."""

    code = "graph_cycle"


class UnknownOp(InvalidGraph):
    """A name that no op of the catalogue bears."""

    code = "unknown_op"


class UnknownAttribute(InvalidGraph):
    """An attribute that the op does not have."""

    code = "unknown_attribute"


class ExpressionError(InvalidGraph):
    """Expression text that does not parse."""

    code = "syntax_error"

    def __init__(self, detail: str, line: int, column: int) -> None:
        super().__init__(f"line {line}, column {column}: {detail}")
        self.line = line
        self.column = column


class UnknownName(EngineError):
    """A name that stands for nothing in the graph."""

    code = "unknown_name"


class MissingInput(EngineError):
    """A graph input for which no tensor came."""

    code = "missing_input"


class ShapeMismatch(EngineError):
    """Shapes that an op, or a tensor's partner, cannot take together."""

    code = "shape_mismatch"


class DtypeMismatch(EngineError):
    """A dtype that an op, or a tensor's partner, cannot take."""

    code = "dtype_mismatch"


class GradOutputsRequired(EngineError):
    """A non-scalar output without a cotangent."""

    code = "grad_outputs_required"


class NotDifferentiable(EngineError):
    """A derivative that does not exist, with the reason."""

    code = "not_differentiable"


class NotScalar(EngineError):
    """A call that needs one scalar output."""

    code = "not_scalar"


class SingularMatrix(EngineError):
    """A matrix that a kernel of linear algebra cannot go on with."""

    code = "singular_matrix"


class NonFinite(EngineError):
    """A NaN or an infinity that came out of finite numbers, under nan_policy "raise"."""

    code = "non_finite"


class OutOfMemory(EngineError):
    """No memory now, for a plan that is within the limits."""

    code = "overloaded"


def _figure(number: float) -> str:
    """A count to the last digit, a measure to some."""
    return f"{number:,}" if isinstance(number, int) else f"{number:,.6g}"


class Breach(EngineError):
    """A figure past its limit."""

    def __init__(self, detail: str, name: str, maximum: float, actual: float, *, node: str | None = None) -> None:
        super().__init__(detail, node=node)
        self.name = name
        self.maximum = maximum
        self.actual = actual


class LimitExceeded(Breach):
    """More than the service takes, now and later."""

    code = "limit_exceeded"

    def __init__(self, name: str, maximum: float, actual: float, what: str, *, node: str | None = None) -> None:
        detail = f"{what}: {_figure(actual)} is over the limit {name} of {_figure(maximum)}"
        super().__init__(detail, name, maximum, actual, node=node)


class DeadlineExceeded(Breach):
    """The time for this request is over."""

    code = "deadline_exceeded"
