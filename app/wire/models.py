"""The form of requests and answers: what pydantic checks, and what the OpenAPI document says.

Pydantic sees the structure only. Tensors and graphs pass through as they came (`Any` with a schema), because a million
floats are read by NumPy, and graphs by the engine, which knows where a fault is. Answers are written by hand for the
same reason; their models document them.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SkipValidation, WithJsonSchema

from engine.attrs import NON_FINITE
from engine.program import ID_PATTERN
from engine.types import DTYPES


class Model(BaseModel):
    """A part of the wire: unknown fields are refused, and docstrings describe the known ones."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True, serialize_by_alias=True)


NUMBER = {"oneOf": [{"type": "number"}, {"type": "boolean"}, {"enum": list(NON_FINITE)}]}
DATA: dict[str, Any] = {
    "description": "A number, a boolean, or nested lists of them; non-finite numbers are strings.",
    "anyOf": [*NUMBER["oneOf"], {"type": "array", "items": {}}],
}
DTYPE = {"enum": list(DTYPES)}
SHAPE = {"type": "array", "items": {"type": "integer", "minimum": 0}}
_FIELDS = {"dtype": DTYPE, "shape": SHAPE, "requires_grad": {"type": "boolean"}}
_B64 = {"type": "string", "contentEncoding": "base64", "description": "C-order little-endian bytes."}
TENSOR_IN: dict[str, Any] = {
    "title": "Tensor",
    "anyOf": [
        *DATA["anyOf"],
        {
            "type": "object",
            "properties": {"data": DATA, **_FIELDS},
            "required": ["data"],
            "additionalProperties": False,
        },
        {
            "type": "object",
            "properties": {"b64": _B64, **_FIELDS},
            "required": ["b64", "dtype", "shape"],
            "additionalProperties": False,
        },
    ],
}
TENSOR_OUT: dict[str, Any] = {
    "title": "Tensor",
    "type": "object",
    "properties": {"dtype": DTYPE, "shape": SHAPE, "data": DATA, "b64": _B64},
    "required": ["dtype", "shape"],
}
SPEC_IN: dict[str, Any] = {
    "title": "Spec",
    "description": "Shape and dtype of an input, or a tensor that has them.",
    "anyOf": [
        {"type": "object", "properties": {"dtype": DTYPE, "shape": SHAPE}, "required": ["shape"]},
        *TENSOR_IN["anyOf"],
    ],
}
ID = {"type": "string", "pattern": f"^{ID_PATTERN}$"}
NODES = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "properties": {
            "id": ID,
            "op": {"type": "string", "description": "A name out of GET /ops, or that of a function of the graph."},
            "inputs": {
                "type": "array",
                "items": {},
                "description": "Names of nodes and inputs, numbers (weak), lists or tensors (constants).",
            },
            "attrs": {"type": "object"},
            "no_grad": {"type": "boolean", "default": False},
        },
        "required": ["id", "op"],
        "additionalProperties": False,
    },
}
OUTPUTS = {"type": ["array", "null"], "items": {"type": "string"}, "description": "The last node when absent."}
FUNCTION = {
    "title": "Function",
    "type": "object",
    "properties": {
        "inputs": {"type": "array", "items": ID, "description": "Its parameters, in order."},
        "nodes": NODES,
        "outputs": OUTPUTS,
    },
    "required": ["nodes"],
    "additionalProperties": False,
}
GRAPH: dict[str, Any] = {
    "title": "Graph",
    "type": "object",
    "properties": {
        "nodes": NODES,
        "outputs": OUTPUTS,
        "functions": {
            "type": "object",
            "additionalProperties": FUNCTION,
            "description": "Graphs by name, that nodes call, or hand to an op such as scan.",
        },
    },
    "required": ["nodes"],
    "additionalProperties": False,
}

TensorIn = Annotated[SkipValidation[Any], WithJsonSchema(TENSOR_IN)]
TensorOut = Annotated[SkipValidation[Any], WithJsonSchema(TENSOR_OUT)]
SpecIn = Annotated[SkipValidation[Any], WithJsonSchema(SPEC_IN)]
GraphIn = Annotated[SkipValidation[Any], WithJsonSchema(GRAPH)]
Tensors = dict[str, TensorIn]


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]
"""An integer; 2.0 counts, because a JSON client may not tell it from 2."""
TensorsOut = dict[str, TensorOut]


Include = Literal[
    "nodes",
    "expression",
    "dot",
    "mermaid",
    "latex",
    "derivative_graph",
    "derivative_expression",
    "derivative_dot",
    "derivative_mermaid",
    "derivative_latex",
]

ID_FORM = re.compile(r"[0-9a-f]{32}\Z")
NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.\-]{0,63}$"


def _no_id(name: str) -> str:
    if ID_FORM.match(name):
        raise ValueError("a name is not of the form of an id")
    return name


class GraphForm(Model):
    """The graph of a request, in exactly one of three forms."""

    # Lists fail fast: of a million faults in one, the first is enough.

    expression: str | None = Field(None, examples=["y = x**3"])
    """The graph as text: statements separated by newlines or `;`, of which the last gives the output."""

    graph: GraphIn | None = None
    """The graph as nodes."""

    outputs: list[str] | None = Field(None, fail_fast=True, min_length=1)
    """Which values are outputs, instead of those that the graph names."""

    include: list[Include] = Field(default_factory=list, fail_fast=True, max_length=len(get_args(Include)))
    """What more the answer shall have: every node's metadata; the graph that computed the derivative, to post back.

    Either graph can be had as text, too: as an expression, in Graphviz's DOT, in Mermaid, in LaTeX; that of the posted
    graph stands within `graph`.
    """


class InspectRequest(GraphForm):
    """A graph to look at."""

    inputs: dict[str, SpecIn] | None = None
    """Shapes and dtypes of the graph's inputs; without them shapes and costs stay unknown."""


class RegisterRequest(InspectRequest):
    """A graph to keep."""

    name: Annotated[str, AfterValidator(_no_id)] | None = Field(None, pattern=NAME, examples=["model"])
    """A name that leads to the graph, from now on to this one. Names are found by GET /graphs?name=…"""


class Request(GraphForm):
    """What all calls take."""

    call: ClassVar[str]
    """The engine's name of the call."""

    graph_id: str | None = Field(None, max_length=64)
    """The id of a registered graph."""

    inputs: Tensors = Field(default_factory=dict)
    """A tensor for every input of the graph. Numbers without a dtype are float64."""

    wrt: list[str] | None = Field(None, fail_fast=True, max_length=256)
    """Inputs or nodes to differentiate by; every floating input whose requires_grad is not false when absent."""

    batch: list[str] = Field(default_factory=list, fail_fast=True, max_length=256)
    """Inputs with a leading batch axis; the graph is written for one example (vmap)."""

    encoding: Literal["json", "base64"] = "json"
    """How tensors are written in the answer."""

    nan_policy: Literal["ieee", "mask", "raise"] = "ieee"
    """`mask`: a zero cotangent wins over an infinite slope. `raise`: making a NaN or infinity is an error."""

    timeout: float | None = Field(None, gt=0)
    """Seconds for this request; may only lower the service's own."""


class ValueRequest(Request):
    """Forward only."""

    call: ClassVar[str] = "value"


class GradRequest(Request):
    """Gradients: vector-Jacobian products, summed over outputs."""

    call: ClassVar[str] = "grad"

    grad_outputs: Tensors | Literal["ones"] | None = None
    """The gradient vector v of `y.backward(v)`, by output, or "ones". A non-scalar output needs it."""

    accumulate: Tensors = Field(default_factory=dict)
    """Gradients of earlier calls, by wrt: this call's are added to them."""


class JvpRequest(Request):
    """A Jacobian-vector product, by forward mode."""

    call: ClassVar[str] = "jvp"

    tangents: Tensors
    """A direction for each input that moves."""


class JacobianRequest(Request):
    """Full Jacobians of every output by every wrt."""

    call: ClassVar[str] = "jacobian"

    mode: Literal["auto", "forward", "reverse"] = "auto"
    """Columns (forward) or rows (reverse) first; auto takes what costs less."""

    sparse: bool = False
    """Blocks as their nonzeros, by rows, in as many products with vectors as it takes to tell them apart."""


class HessianRequest(Request):
    """The Hessian of a scalar output, in blocks."""

    call: ClassVar[str] = "hessian"

    sparse: bool = False
    """Blocks as their nonzeros, by rows, in as many products with vectors as it takes to tell them apart."""


class HvpRequest(Request):
    """Hessian-vector products of a scalar output, without the Hessian."""

    call: ClassVar[str] = "hvp"

    vectors: Tensors
    """A vector for each wrt; one that is absent is zero."""


class NthRequest(Request):
    """Derivatives of every order up to n, or along a path of inputs."""

    call: ClassVar[str] = "nth"

    order: Whole | None = Field(None, ge=1)
    """The highest order; each wrt on its own."""

    path: list[str] | None = Field(None, fail_fast=True, min_length=1)
    """A mixed derivative: the names to differentiate by, one after the other."""


class LaplacianRequest(Request):
    """Second derivatives by every element, and their sum, of one output."""

    call: ClassVar[str] = "laplacian"


class TensorsRequest(Request):
    """Whole tensors of derivatives of one output."""

    call: ClassVar[str] = "tensors"

    order: Whole | None = Field(None, ge=1)
    """The highest order; each wrt on its own."""

    path: list[str] | None = Field(None, fail_fast=True, min_length=1)
    """Or a mixed derivative: the names to differentiate by, one after the other."""


class TaylorRequest(Request):
    """Taylor coefficients along a direction."""

    call: ClassVar[str] = "taylor"

    direction: Tensors
    """The direction v of f(x + t·v), by input."""

    order: Whole = Field(ge=0)
    """The highest power of t."""


class CheckRequest(Request):
    """Analytic derivatives against numerical ones."""

    call: ClassVar[str] = "check"

    order: Whole = Field(1, ge=1, le=2)
    """1 checks gradients, 2 checks second derivatives."""


class SpecOut(Model):
    dtype: str
    shape: list[int]


class NodeOut(Model):
    """One posted node, as PyTorch would see it."""

    id: str
    op: str
    inputs: list[Any]
    attrs: dict[str, Any]
    dtype: str | list[str]
    shape: list[Any]
    requires_grad: bool
    is_leaf: bool
    grad_fn: str | None


class GraphOut(Model):
    """Metadata of a graph; flops and peak_bytes are estimates made before the run."""

    id: str
    """A hash of the content: equal graphs have equal ids, whatever the order of their nodes."""
    inputs: dict[str, SpecOut | None]
    outputs: dict[str, SpecOut | None]
    node_count: int
    edge_count: int
    depth: int
    """Ops on the longest path."""
    ops: dict[str, int]
    flops: int | None
    peak_bytes: int | None
    nodes_removed: int | None
    """How many fewer nodes run than the graph and its derivative have: what the optimiser took away."""
    nodes: list[NodeOut] | None = None
    """With include: ["nodes"], in topological order."""
    expression: str | None = None
    """With include: ["expression"], and so with the next three: the graph as text."""
    dot: str | None = None
    mermaid: str | None = None
    latex: str | None = None


class WarningOut(Model):
    """Something to know of an answer that is right."""

    code: str
    """Stable; the reference lists them."""
    detail: str
    node: str | None
    """The posted node that it is about."""


class RegisteredOut(GraphOut):
    """What is known of a graph that was registered."""

    name: str | None
    """The name that leads to it, where one was given."""


class ListedOut(GraphOut):
    """A graph in the list, as it was described when it was registered."""

    names: list[str]
    """All names that lead to it."""


class GraphsAnswer(Model):
    graphs: list[ListedOut]
    """The latest first."""
    next: str | None
    """The `cursor` of the next page, where there is one."""


class ShownOut(GraphOut):
    """A graph, and what is known of it while its inputs have no shapes."""

    graph: GraphIn
    """Its nodes. Parts of an expression that have no name have made-up ids here."""
    expression: str
    """The same as text; posted, it is the graph of this id."""


class Answer(Model):
    """What all calls answer."""

    values: TensorsOut
    """The outputs, by name."""
    graph: GraphOut
    warnings: list[WarningOut] | None = None
    """What to know of the answer, where there is anything: which node a NaN in a derivative comes from."""


class Derived(Answer):
    derivative_graph: GraphIn | None = None
    """With include: ["derivative_graph"]: posted to /grad/value with the same inputs, it gives the same numbers."""
    derivative_expression: str | None = None
    """The same as an expression, in which what is used once has no name of its own."""
    derivative_dot: str | None = None
    """The same in Graphviz's DOT language."""
    derivative_mermaid: str | None = None
    """The same as a Mermaid flowchart."""
    derivative_latex: str | None = None
    """The same in LaTeX, an aligned environment."""


class ValueAnswer(Answer):
    """Values."""


class GradAnswer(Derived):
    gradients: TensorsOut
    """By wrt, in the wrt's shape and dtype."""


class JvpAnswer(Derived):
    tangents: TensorsOut
    """By output."""


class SparseOut(Model):
    """A matrix by its rows (CSR), whose axes are those of the output and of the wrt, flattened in C order.

    Entries that are not listed are zero whatever the inputs; those listed may be.
    """

    indptr: TensorOut
    """Row i has the entries from indptr[i] to indptr[i + 1]."""
    indices: TensorOut
    """The column of each entry, ascending in a row."""
    values: TensorOut
    """With the leading axis of `batch`, where there is one."""
    shape: list[int]
    """Size of the output, size of the wrt."""


BlocksOut = dict[str, TensorOut | SparseOut]


class JacobianAnswer(Derived):
    jacobian: dict[str, BlocksOut]
    """By output, then wrt: shape output + wrt, or a sparse matrix."""


class HessianAnswer(Derived):
    gradients: TensorsOut
    hessian: dict[str, BlocksOut]
    """By wrt, then wrt: shape wrt + wrt, or a sparse matrix."""


class HvpAnswer(Derived):
    gradients: TensorsOut
    hvp: TensorsOut
    """By wrt."""


class Derivative(Model):
    order: int
    wrt: list[str]
    """The names that were differentiated by, one after the other."""
    value: TensorOut


class NthAnswer(Derived):
    derivatives: list[Derivative]
    """Wrt by wrt, or prefix by prefix of the path; every order up to the last."""


class LaplacianAnswer(Derived):
    laplacian: TensorsOut
    """By wrt, in the output's shape: the sum of the diagonal over the wrt's axes."""
    diagonal: TensorsOut
    """By wrt, in shape output + wrt: the second derivative by each element."""


class TensorsAnswer(Derived):
    derivatives: list[Derivative]
    """Wrt by wrt, or prefix by prefix of the path; every order k up to the last, in shape output + k wrts."""


class TaylorAnswer(Derived):
    coefficients: TensorsOut
    """By output: shape [order + 1] + output, the k-th row being the coefficient of t^k."""


class Reading(Model):
    """The derivative along one direction, by the two ways."""

    index: list[int] | None
    """The element; null where the direction was a random one."""
    part: Literal["real", "imaginary"] | None = None
    """Which part moved, of a complex element."""
    analytic: float | str
    numerical: float | str


class WrtCheck(Model):
    passed: bool
    method: Literal["complex_step", "differences"]
    """How the numerical derivative was found: a complex step is exact to rounding, where it applies."""
    max_abs_error: float | str
    max_rel_error: float | str
    worst: Reading | None = None
    """The direction with the largest error."""
    failed: list[Reading] | None = None
    """Where it failed, the elements that are furthest off, up to five."""
    detail: str | None = None
    """Where it failed, what is off, and which nodes to look at."""


class CheckAnswer(Model):
    passed: bool
    max_abs_error: float | str
    max_rel_error: float | str
    """Against the largest derivative by that wrt, or 1 where that is smaller."""
    wrt: dict[str, WrtCheck]
    warnings: list[WarningOut] | None = None
    """Nodes to look at: what is not tracked, where the point is a kink, a jump or an edge, whose derivative is off."""
    graph: GraphOut


class OperandOut(Model):
    name: str
    dtypes: list[str]
    variadic: bool


class AttributeOut(Model):
    schema_: dict[str, Any] = Field(alias="schema")
    doc: str
    required: bool
    default: Any = None


class OpOut(Model):
    """One op of the catalogue."""

    name: str
    doc: str
    family: str
    aliases: list[str]
    arity: int | None
    """Number of operands; null where any number goes."""
    operands: list[OperandOut]
    results: list[str]
    attributes: dict[str, AttributeOut]
    differentiable: bool
    derivative: str
    """elementwise, linear, bilinear, custom, composite (of other ops), or zero."""
    grad_fn: str
    example: str
    """As it is written in an expression."""


class OpsAnswer(Model):
    count: int
    ops: list[OpOut]


class LimitOut(Model):
    name: str
    max: float
    doc: str


class LimitsAnswer(Model):
    limits: list[LimitOut]


class ErrorOut(Model):
    code: str
    status: int
    title: str


class ErrorsAnswer(Model):
    errors: list[ErrorOut]


class HealthAnswer(Model):
    status: Literal["ok"]


class ReadyAnswer(HealthAnswer):
    checks: dict[str, Literal["ok"]]
    """What was looked at."""


class BreachOut(BaseModel):
    """A figure past its limit."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    name: str
    """As GET /limits has it, and the settings."""
    max: float
    """What held for this request: a key's own figure stands in place of client_requests and client_rate, and a
    `timeout` that was asked for in place of seconds."""
    actual: float
    """What it would have been with this request, or was by the time that it was looked at."""


class ProblemOut(BaseModel):
    """An error (RFC 9457)."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    type: str
    title: str
    status: int
    detail: str
    """What was wrong, where, and what was expected."""
    instance: str
    code: str
    """Stable; GET /errors lists them."""
    pointer: str | None
    """A JSON pointer to the part of the request that is to blame."""
    node: str | None = None
    """The node that is to blame."""
    limit: BreachOut | None = None
    """For limit_exceeded, rate_limited and deadline_exceeded, and for overloaded where a setting says when it is."""
    errors: list[dict[str, str]] | None = None
    """For invalid_request, up to ten faults, each with pointer and detail."""
    line: int | None = None
    column: int | None = None
    """Where in the expression; both count from 1."""
    checks: dict[str, str] | None = None
    """Of `/readyz`: what was looked at, and "ok" or what is wrong."""
