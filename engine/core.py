"""Nodes, graphs and the op record: the vocabulary that everything else is written in.

The one idea: **a node is immutable and interned**. Equal expressions built in one graph are one object, so common
subexpressions vanish as they are emitted, and a transform that emits the same term twice gets the first one back.
Shape and dtype are inferred, and checked, when a node is made; a node that exists is well-formed.

A graph only grows at its end, and a node's inputs stand before it: ascending indices are a topological order, and
nothing here or above needs recursion or a depth-first search.

An op is one record (`Op`), and an op that is called on nodes emits a node. The registry, `ops`, is a namespace:
`ops.tanh(x)`; names are looked up when a rule runs, so rule files need not import one another.
"""

from __future__ import annotations

import difflib
import hashlib
import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np

from engine.attrs import REQUIRED, Attr
from engine.errors import (
    DtypeMismatch,
    EngineError,
    InvalidGraph,
    LimitExceeded,
    UnknownAttribute,
    UnknownOp,
    pointer_to,
)
from engine.limits import Limits
from engine.types import BOOL, DTYPES, FLOAT64, INT64, KINDS, Array, Dtype, Shape, Spec, Tick, promote, to_inexact
from engine.warnings import Notice

Attrs: TypeAlias = dict[str, Any]
Value: TypeAlias = "Node | bool | int | float | complex"
"""What an op can be called on: a node, or a bare number, which is weak."""


class Node:
    """One operation in a graph, or a leaf. Made by calling an op; never changed.

    `shape` and `dtype` describe its value, or the first of `specs` where its op has several results; those are read
    through projections only. `weak` marks what was computed from bare numbers alone. `origin` is the
    id of the posted node that it came from, for messages.
    """

    __slots__ = (
        "attrs",
        "dtype",
        "graph",
        "index",
        "inputs",
        "op",
        "origin",
        "shape",
        "size",
        "specs",
        "value",
        "weak",
    )

    def __init__(
        self,
        graph: Graph,
        op: Op,
        inputs: tuple[Node, ...],
        attrs: Attrs,
        specs: tuple[Spec, ...],
        weak: bool,
        value: Array | None,
    ) -> None:
        self.graph = graph
        self.index = len(graph.nodes)
        self.op = op
        self.inputs = inputs
        self.attrs = attrs
        self.specs = specs
        self.shape, self.dtype = specs[0]
        self.size = math.prod(self.shape)
        self.weak = weak
        self.value = value
        self.origin = graph.origin

    @property
    def spec(self) -> Spec:
        return self.specs[0]

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of its value, or of all its results."""
        return self.size * self.dtype.itemsize if len(self.specs) == 1 else sum(spec.nbytes for spec in self.specs)

    @property
    def flops(self) -> int:
        """Floating-point operations; an element counts as one operation unless the op says otherwise."""
        if self.op.flops is None:
            return self.size
        return self.op.flops(self.shape, *[x.shape for x in self.inputs], **self.attrs)

    @property
    def scratch_bytes(self) -> int:
        """Workspace of the kernel."""
        return 0 if self.op.scratch is None else self.op.scratch(self)

    def __repr__(self) -> str:
        operands = ", ".join(f"%{node.index}" for node in self.inputs)
        return f"%{self.index} = {self.op.name}({operands}) {self.spec}"

    # Rules read like formulas. `==` stays identity, which interning makes the right equality.
    def __add__(self, other: Value) -> Node:
        return ops.add(self, other)

    def __radd__(self, other: Value) -> Node:
        return ops.add(other, self)

    def __sub__(self, other: Value) -> Node:
        return ops.subtract(self, other)

    def __rsub__(self, other: Value) -> Node:
        return ops.subtract(other, self)

    def __mul__(self, other: Value) -> Node:
        return ops.multiply(self, other)

    def __rmul__(self, other: Value) -> Node:
        return ops.multiply(other, self)

    def __truediv__(self, other: Value) -> Node:
        return ops.divide(self, other)

    def __rtruediv__(self, other: Value) -> Node:
        return ops.divide(other, self)

    def __pow__(self, other: Value) -> Node:
        return ops.pow(self, other)

    def __matmul__(self, other: Node) -> Node:
        return ops.matmul(self, other)

    def __neg__(self) -> Node:
        return ops.negative(self)

    def __lt__(self, other: Value) -> Node:
        return ops.less(self, other)

    def __le__(self, other: Value) -> Node:
        return ops.less_equal(self, other)

    def __gt__(self, other: Value) -> Node:
        return ops.greater(self, other)

    def __ge__(self, other: Value) -> Node:
        return ops.greater_equal(self, other)

    def __and__(self, other: Node) -> Node:
        return ops.logical_and(self, other)

    def __or__(self, other: Node) -> Node:
        return ops.logical_or(self, other)

    def __invert__(self) -> Node:
        return ops.logical_not(self)


@dataclass(eq=False)
class Graph:
    """A growing list of interned nodes. One graph belongs to one build, so threads share nothing.

    `tick` is called now and then while nodes are emitted; it may raise, to stop a build that takes too long.
    `masked` is the nan_policy "mask": products with a cotangent let a zero cotangent win (see engine.derivative).
    `origin` is stamped on new nodes: the id of the posted node that is being built or differentiated.
    """

    limits: Limits = field(default_factory=Limits)
    tick: Tick | None = None
    masked: bool = False
    origin: str | None = None
    nodes: list[Node] = field(default_factory=list)
    leaves: dict[str, Node] = field(default_factory=dict)
    """The input of each name that was made last: batching makes one of a larger shape for the same tensor."""
    _interned: dict[Hashable, Node] = field(default_factory=dict)
    slopes: dict[tuple[Node, int], Any] = field(default_factory=dict)
    """Local partials by node and operand, so that every transform emits them once (engine.derivative)."""
    emitted: list[int] = field(default_factory=lambda: [0])
    """How many nodes there are in this graph and in all its offshoots: one count, shared by them."""
    offshoots: list[Graph] = field(default_factory=list)
    alarms: dict[Node, Notice] = field(default_factory=dict)
    """What a derivative rule has to say where a boolean node, of values alone, turns out true."""

    def __len__(self) -> int:
        return len(self.nodes)

    def settle(self) -> None:
        """Let go of what only serves to add to it."""
        self.tick = None
        self._interned, self.slopes = {}, {}

    def come_apart(self) -> None:
        """Let go of the nodes, which refer back to it."""
        for each in (self, *self.offshoots):
            each.nodes.clear()
            each.leaves.clear()
            each.alarms.clear()
        self.offshoots.clear()

    def offshoot(self) -> Graph:
        """An empty graph for the body of a loop or a branch, under the same limits, which count its nodes, too."""
        made = Graph(self.limits, self.tick, self.masked, self.origin, emitted=self.emitted, offshoots=self.offshoots)
        self.offshoots.append(made)
        return made

    def input(self, name: str, spec: Spec, *, weak: bool = False) -> Node:
        """The leaf that is bound to a tensor of this name, shape and dtype at run time."""
        leaf = self.intern(INPUT, (), {"name": name, "shape": spec.shape, "dtype": spec.dtype.name}, weak=weak)
        self.leaves[name] = leaf
        return leaf

    def constant(self, value: Any, dtype: Dtype | None = None, *, weak: bool = False) -> Node:
        """The leaf that holds a value. The array is kept as it is, read-only."""
        array = np.asarray(value, dtype)
        if array.flags.writeable:
            array = array.copy()
            array.flags.writeable = False
        content = array.tobytes() if array.nbytes <= 256 else hashlib.blake2b(np.ascontiguousarray(array).data).digest()
        key = (CONSTANT, array.dtype.num, array.shape, content, weak)
        if key not in self._interned:
            self._interned[key] = self._append(CONSTANT, (), {}, (Spec(array.shape, array.dtype),), weak, array)
        return self._interned[key]

    def number(self, value: bool | int | float | complex) -> Node:
        """A weak constant. Raises DtypeMismatch for an integer that does not fit int64."""
        try:
            return self.constant(value, _WEAK_DTYPE[type(value)], weak=True)
        except OverflowError as error:
            raise DtypeMismatch(f"the integer {str(value)[:40]} does not fit int64") from error

    def intern(
        self, op: Op, inputs: tuple[Node, ...], attrs: Attrs, *, tag: Hashable = None, weak: bool = False
    ) -> Node:
        """The node for this op on these inputs, new or found. A `tag` keeps equal nodes apart on purpose."""
        return self._interned_as(op, inputs, attrs, None, tag, weak)

    def again(self, node: Node, inputs: tuple[Node, ...], *, tag: Hashable = None) -> Node:
        """The op of `node` on other inputs of the same specs."""
        return self._interned_as(node.op, inputs, node.attrs, node.specs, tag, node.weak)

    def _interned_as(
        self,
        op: Op,
        inputs: tuple[Node, ...],
        attrs: Attrs,
        specs: tuple[Spec, ...] | None,
        tag: Hashable,
        weak: bool,
    ) -> Node:
        # repr tells 1 from 1.0 and 0.0 from -0.0, which are equal as values and not as attributes.
        key = (op, inputs, repr(attrs) if attrs else "", weak, tag)
        node = self._interned.get(key)
        if node is None:
            known = op.infer(inputs, attrs) if specs is None else specs
            node = self._interned[key] = self._append(op, inputs, attrs, known, weak, None)
        return node

    def _append(
        self,
        op: Op,
        inputs: tuple[Node, ...],
        attrs: Attrs,
        specs: tuple[Spec, ...],
        weak: bool,
        value: Array | None,
    ) -> Node:
        limits = self.limits
        for spec in specs:
            if not spec.shape:
                continue
            if len(spec.shape) > limits.rank:
                raise LimitExceeded("rank", limits.rank, len(spec.shape), f"axes of the result of {op.name}")
            if max(spec.shape) > limits.dimension:
                raise LimitExceeded(
                    "dimension", limits.dimension, max(spec.shape), f"an axis of the result of {op.name}"
                )
            if spec.size > limits.elements:
                raise LimitExceeded("elements", limits.elements, spec.size, f"elements of the result of {op.name}")
            # An empty tensor may not hide a size that NumPy cannot address.
            if not spec.size and (hidden := math.prod(filter(None, spec.shape))) >> 40 > limits.elements:
                raise LimitExceeded(
                    "elements", limits.elements, hidden, f"elements, but for an empty axis, of {op.name}"
                )
        self.count(1)
        node = Node(self, op, inputs, attrs, specs, weak, value)
        self.nodes.append(node)
        return node

    def count(self, nodes: int) -> None:
        """Take `nodes` more into account. Raises LimitExceeded, and what `tick` raises."""
        self.emitted[0] = total = self.emitted[0] + nodes
        if total > self.limits.expanded_nodes:
            raise LimitExceeded("expanded_nodes", self.limits.expanded_nodes, total, "nodes after expansion")
        if self.tick is not None and ((total - nodes) % 256 == 0 or nodes > 1):
            self.tick()

    def warn_if(self, condition: Node, code: str, detail: str) -> None:
        """Have an answer that is not finite say this of the node that is being differentiated, if `condition` holds.

        The condition must not depend on tangents or cotangents. It is looked at only after the run, and only then.
        """
        self.alarms[condition] = Notice(code, detail, self.origin)

    def live(self, roots: Sequence[Node]) -> list[Node]:
        """What `roots` need, themselves included, in topological order."""
        wanted = bytearray(len(self.nodes))
        for root in roots:
            wanted[root.index] = 1
        for index in range(len(wanted) - 1, -1, -1):
            if wanted[index]:
                for node in self.nodes[index].inputs:
                    wanted[node.index] = 1
        return [node for node, want in zip(self.nodes, wanted, strict=False) if want]


_WEAK_DTYPE = {bool: BOOL, int: INT64, float: FLOAT64, complex: DTYPES["complex128"]}


@dataclass(frozen=True)
class Operand:
    """One operand of an op: its name, the kinds of dtype it takes, and whether it promotes with the others.

    `kinds` are NumPy's letters: b boolean, i and u integer, f real floating, c complex. Conditions, indices and
    counts do not promote.
    """

    name: str
    kinds: str = "biuf"
    promotes: bool = True
    variadic: bool = False
    default: float | None = None
    """What stands for the operand when it is left out, where it may be: the last operands only."""
    may_lack: bool = False
    """Of a variadic operand: there may be none."""

    @property
    def is_integer(self) -> bool:
        return set(self.kinds) <= set("iu")


@dataclass(frozen=True)
class Sample:
    """Inputs at which an op is smooth. An operand is a shape (drawn from the op's domain) or a value."""

    operands: tuple[tuple[int, ...] | list[Any] | float | int | bool, ...]
    attrs: Attrs = field(default_factory=dict)
    functions: str = ""
    """Those that the attributes name, as lines of an expression."""


@dataclass(frozen=True)
class Refusal:
    """Inputs that an op must refuse, and the code of the error."""

    operands: tuple[tuple[int, ...] | list[Any] | float | int | bool, ...]
    attrs: Attrs
    code: str
    functions: str = ""


class Derivative(Protocol):
    """How one op is differentiated; the kinds are in engine.derivative."""

    kind: ClassVar[str]
    is_flat: ClassVar[bool]

    def forward(self, node: Node, tangents: Sequence[Node | None]) -> Any: ...

    def reverse(self, node: Node, g: Any, wanted: Sequence[bool]) -> Sequence[Node | None]: ...

    def taylor(self, node: Node, order: int) -> Iterator[Any] | None: ...


@dataclass(frozen=True)
class Fold:
    """How a reduction is put together from parts: `reduce` over each part, `reduce` over what came out, then `finish`.

    `reduce(array, axis, keepdims=…)` is that of a ufunc; `finish(total, count)` gets the number of elements folded.
    """

    reduce: Callable[..., Any]
    finish: Callable[[Any, int], Any] = lambda total, count: total


@dataclass(frozen=True, eq=False)
class Op:
    """All that is known of one op. Everything else reads it; nothing else knows the op.

    Either `kernel` is given, with `shape` and `derivative`, or `expand`, which emits other ops (a composite).
    `shape(*shapes, **attrs)` is the result's shape, or a tuple of shapes for an op with named `results`.
    `canonical(attrs, *shapes)` settles what depends on shapes (negative axes), so that equal calls intern equally.
    `kernel(*arrays, **attrs)` computes it in NumPy. `batch` says how it acts under one more leading axis.
    `returns(*dtypes, **attrs)` is the dtype of each result; by default that of the promoted operands.
    """

    name: str
    doc: str
    operands: tuple[Operand, ...] = ()
    attrs: Mapping[str, Attr] = field(default_factory=dict)
    shape: Callable[..., Any] | None = None
    kernel: Callable[..., Any] | None = None
    settled: Callable[..., Callable[..., Any]] | None = None
    """The kernel for given attributes, from (**attrs), where half of its time goes into reading them."""
    derivative: Derivative | None = None
    expand: Callable[..., Any] | None = None
    batch: Callable[..., Any] | None = None
    diagonal: Callable[..., Node | None] | None = None
    """How a linear operand that is diagonal under a new first axis is met: (node, its place, its diagonal, rows) gives
    those rows of the batched result; see engine.basis. None where that is nothing special."""
    links: Callable[..., tuple[Any, Any]] | None = None
    """Which elements depend on which, from (node, an operand's place), where engine.sparsity would not find it: labels
    of the operand's elements and of the result's; an element depends on those that bear its own label."""
    canonical: Callable[..., Attrs] | None = None
    returns: Callable[..., Dtype | tuple[Dtype, ...]] | None = None
    same: Callable[..., Node | None] | None = None
    """The operand that the result equals, bit for bit, if it does: then nothing is emitted."""
    guard: Callable[..., None] | None = None
    """A check against Limits, from (limits, *nodes, **attrs), of what shapes alone do not bound."""
    specs: Callable[..., tuple[Spec, ...]] | None = None
    """Instead of `shape` and `returns`: the specs of all results, from (*nodes, **attrs); how many there are varies."""
    close: Callable[..., tuple[Sequence[Node], Attrs]] | None = None
    """Makes typed graphs of attributes that name functions, from (graph, nodes, attrs); new operands may join."""
    results: tuple[str, ...] = ()
    named_by: str = ""
    """The attribute whose function names the results."""
    steers: bool = False
    """The kernel runs graphs of its own: it takes `run(plan, arrays)`, which keeps deadline and policies."""
    casts: str = ""
    """The attribute that names the dtype to compute in: operands are cast to it first, and a node has None there."""
    scalar: str | Callable[[Node], str] = ""
    """The kernel over Python floats, a Python expression of the operands {0}, {1}, …; or what writes it of a node, or
    nothing where that has none.

    It gives what NumPy gives, or raises ArithmeticError or ValueError; then the kernel is asked (engine.floats).
    """
    pointwise: bool = False
    """Each element of the result follows from those at its place in the operands alone."""
    fold: Fold | None = None
    """For a reduction that can be put together from those of parts."""
    inexact: bool = False
    """Integers and booleans are computed in float64."""
    holomorphic: bool = True
    """Complex results have derivatives by complex operands as they have by real ones; those of conj do not."""
    view: bool = False
    """The result may share the first operand's memory."""
    fills: bool = False
    """The kernel takes `out` as ufuncs do: memory for the result, which may be that of an operand."""
    owns: bool = False
    """The result is in fresh memory, which a later step may write over; so are those of ufuncs and of pointwise ops."""
    packs: bool = False
    """A view that becomes a copy where the operand is not contiguous: reshape."""
    flops: Callable[..., int] | None = None
    """Floating-point operations, from (out shape, *operand shapes, **attrs); by default an element, an operation."""
    scratch: Callable[[Node], int] | None = None
    """Bytes of workspace that the kernel allocates beside its result."""
    pace: float = 4.0
    """Operations (flops) that the kernel gets done in a nanosecond on float64, memory apart (engine.costs)."""
    overhead: Callable[[Node], float] | None = None
    """Microseconds of a call whatever the sizes, where it is not that of a single call of NumPy."""
    trips: Callable[[Node], Sequence[tuple[Any, int, int]]] | None = None
    """Of a kernel that steers: the plans that it runs, each with how often, by a guess and at the most."""
    order: tuple[str, ...] = ()
    """Names of operands and attributes as positional arguments stand in a call; operands first by default."""
    aliases: tuple[str, ...] = ()
    torch: str = ""
    """The name in PyTorch's grad_fn where it is not the op's own."""
    domain: tuple[tuple[float, float], ...] = ((-2.0, 2.0),)
    """Where samples are drawn, by operand; the last one stands for the rest."""
    family: str = ""
    example: str = ""
    samples: tuple[Sample, ...] = ()
    refusals: tuple[Refusal, ...] = ()

    def __repr__(self) -> str:
        return f"<op {self.name}>"

    @property
    def takes_out(self) -> bool:
        """Whether the kernel writes its result where it is told to."""
        return self.fills or isinstance(self.kernel, np.ufunc)

    @property
    def is_variadic(self) -> bool:
        return bool(self.operands) and self.operands[-1].variadic

    @property
    def has_several(self) -> bool:
        """Whether its value is a tuple, of which projections take one each."""
        return bool(self.results) or self.specs is not None

    @property
    def grad_fn(self) -> str:
        """The name of this op's node as PyTorch prints it: pow is PowBackward0."""
        words = (self.torch or self.name).split("_")
        return "".join(word[:1].upper() + word[1:] for word in words) + "Backward0"

    def __call__(self, *operands: Value, **attrs: Any) -> Node:
        """Emit this op on nodes of one graph. Raises an EngineError where the op refuses them."""
        for operand in operands:
            if isinstance(operand, Node):
                return self.apply(operand.graph, operands, attrs)[0]
        raise InvalidGraph(f"{self.name} was called without a node; use {self.name}.on(graph, …)")

    def on(self, graph: Graph, *operands: Value, **attrs: Any) -> Node:
        """The same, for calls whose operands are no nodes."""
        return self.apply(graph, operands, attrs)[0]

    def several(self, *operands: Node, **attrs: Any) -> tuple[Node, ...]:
        """The same, for an op with several results: a node for each."""
        return self.apply(operands[0].graph, operands, attrs)

    def apply(
        self, graph: Graph, operands: Sequence[Value], attrs: Attrs, *, tag: Hashable = None, posted: bool = False
    ) -> tuple[Node, ...]:
        """Emit this op in `graph`; a node for each result, mostly one.

        `tag` keeps it from being shared. What is `posted` is held to limits that do not bind rules: arity, and the
        op's guard.
        """
        if posted and len(operands) > graph.limits.arity:
            raise LimitExceeded("arity", graph.limits.arity, len(operands), f"operands of {self.name}")
        operands = [*operands, *self._defaults(len(operands))]
        nodes = [each if isinstance(each, Node) else graph.number(each) for each in operands]
        kept = self.read_attrs(attrs)
        if self.casts and kept[self.casts] is not None:
            nodes = [self._cast_first(node, kept[self.casts]) for node in nodes]
            kept[self.casts] = None
        nodes, weak = self._promoted(nodes)
        if self.close is not None:
            closed, kept = self.close(graph, nodes, kept)
            nodes = list(closed)
        if self.canonical is not None:
            kept = self.canonical(kept, *[node.shape for node in nodes])
        if posted and self.guard is not None:
            self.guard(graph.limits, *nodes, **kept)
        if self.expand is not None:
            expanded = self.expand(*nodes, **kept) if nodes else self.expand(graph, **kept)
            return expanded if isinstance(expanded, tuple) else (expanded,)
        if tag is None and self.same is not None and (operand := self.same(*nodes, **kept)) is not None:
            return (operand,)
        node = graph.intern(self, tuple(nodes), kept, tag=tag, weak=weak)
        if self.has_several:
            return tuple(graph.intern(RESULT, (node,), {"index": at}) for at in range(len(node.specs)))
        return (node,)

    def read_attrs(self, attrs: Attrs) -> Attrs:
        """Attributes in their canonical form and declared order. Raises InvalidGraph, UnknownAttribute."""
        for name in attrs:
            if name not in self.attrs:
                known = ", ".join(self.attrs) or "none"
                raise UnknownAttribute(
                    f"{self.name} has no attribute {name[:64]!r}; it has: {known}", pointer=pointer_to("attrs", name)
                )
        kept = {}
        for name, attr in self.attrs.items():
            value = attrs.get(name, attr.default)
            if value is REQUIRED:
                raise InvalidGraph(f"{self.name} needs the attribute {name!r}: {attr.doc}", pointer="/attrs")
            try:
                kept[name] = attr.read(value) if name in attrs else value
            except EngineError as error:
                error.detail = f"attribute {name} of {self.name}: {error.detail}"
                error.pointer = f"/attrs/{name}"
                raise
        return kept

    def operand(self, at: int) -> Operand:
        """The declaration that operand number `at` falls under."""
        return self.operands[min(at, len(self.operands) - 1)]

    def _cast_first(self, node: Node, dtype: str) -> Node:
        """An operand in the dtype that an attribute asks for. Raises DtypeMismatch where it would lose its half."""
        if node.dtype.kind == "c" and DTYPES[dtype].kind != "c":
            raise DtypeMismatch(
                f"{self.name} of {node.dtype.name} is not computed in {dtype}: it has no imaginary part"
            )
        return ops.astype(node, dtype=dtype)

    def _defaults(self, count: int) -> list[float]:
        """What stands for the operands that are left out. Raises InvalidGraph where there are too few or too many."""
        defaults = [each.default for each in self.operands[count:] if each.default is not None]
        least = len(self.operands) - len(defaults) - any(operand.may_lack for operand in self.operands)
        if count < least or (count > len(self.operands) and not self.is_variadic):
            names = ", ".join(operand.name for operand in self.operands) or "none"
            more = " or more" if self.is_variadic else f" to {len(self.operands)}" if defaults else ""
            raise InvalidGraph(f"{self.name} takes {least}{more} operands ({names}), got {count}", pointer="/inputs")
        return defaults

    def _promoted(self, nodes: list[Node]) -> tuple[list[Node], bool]:
        """Operands in their common dtype, by casts where needed, and whether all of them are weak numbers."""
        if self._needs_nothing(nodes):
            return nodes, False
        together = [at for at in range(len(nodes)) if self.operand(at).promotes]
        strong = [nodes[at].dtype for at in together if not nodes[at].weak]
        weak = [nodes[at].dtype for at in together if nodes[at].weak]
        if together and (weak or self.inexact or len(set(strong)) > 1):
            common = promote(strong, weak)
            common = to_inexact(common) if self.inexact else common
            for at in together:
                nodes[at] = cast(nodes[at], common)
        for at, node in enumerate(nodes):
            self._check_kind(self.operand(at), node.dtype)
        return nodes, bool(weak) and not strong

    def _needs_nothing(self, nodes: list[Node]) -> bool:
        """Whether operands are as they should be already: the common case, told without looking at each declaration."""
        if not nodes:
            return True
        dtype = nodes[0].dtype
        return dtype.kind == "f" and self._takes_floats and all(each.dtype is dtype and not each.weak for each in nodes)

    @cached_property
    def _leader(self) -> int:
        """The first operand that promotes: the result has its dtype, unless `returns` says otherwise."""
        return next(at for at, operand in enumerate(self.operands) if operand.promotes)

    @cached_property
    def _takes_floats(self) -> bool:
        return all("f" in operand.kinds and operand.promotes for operand in self.operands)

    def _check_kind(self, operand: Operand, dtype: Dtype) -> None:
        if dtype.kind not in operand.kinds:
            expected = " or ".join(dict.fromkeys(KINDS[kind] for kind in operand.kinds))
            raise DtypeMismatch(f"{self.name} takes a {expected} {operand.name}, got {dtype.name}")

    def infer(self, inputs: Sequence[Node], attrs: Attrs) -> tuple[Spec, ...]:
        """Shape and dtype of each result. Raises ShapeMismatch, DtypeMismatch."""
        if self.specs is not None:
            return self.specs(*inputs, **attrs)
        assert self.shape is not None
        shapes = self.shape(*[node.shape for node in inputs], **attrs)
        dtypes: Any = (
            inputs[self._leader].dtype
            if self.returns is None
            else self.returns(*[node.dtype for node in inputs], **attrs)
        )
        if not self.results:
            return (Spec(shapes, dtypes),)
        return tuple(map(Spec, shapes, dtypes if isinstance(dtypes, tuple) else (dtypes,) * len(shapes)))


def cast(node: Node, dtype: Dtype) -> Node:
    """`node` in another dtype; a weak number must fit it. Raises DtypeMismatch."""
    if node.dtype == dtype:
        return node
    if node.value is None:
        return ops.astype(node, dtype=dtype.name)
    if node.weak and dtype.kind in "iu" and not np.iinfo(dtype).min <= int(node.value) <= np.iinfo(dtype).max:
        raise DtypeMismatch(f"the number {node.value} does not fit {dtype.name}")
    with np.errstate(over="ignore"):
        value = node.value.real if dtype.kind == "f" else node.value
        return node.graph.constant(value.astype(dtype), weak=node.weak)


class Registry:
    """The catalogue of ops by name, and a namespace to call them from: `ops.tanh(x)`."""

    def __init__(self) -> None:
        self._by_name: dict[str, Op] = {}
        self._aliases: dict[str, Op] = {}
        self.refused: dict[str, str] = {}
        """Names that are known and not offered, each with the reason."""

    def __getattr__(self, name: str) -> Op:
        # Only names that no op bears come here: `enter` makes ops attributes, which rules look up by the thousand.
        raise AttributeError(f"no op is called {name!r}")

    def find(self, name: str) -> Op:
        """The op of this name or alias. Raises UnknownOp, which says why there is none, or a near name."""
        op = self._by_name.get(name) or self._aliases.get(name)
        if op is None:
            raise UnknownOp(self.missing(name))
        return op

    def missing(self, name: str) -> str:
        """Why there is no op of this name, as a sentence without its stop."""
        if name in self.refused:
            return f"{name} is not offered: {self.refused[name]}"
        return f"no op is called {name[:64]!r}{self._near(name)}"

    def _near(self, name: str) -> str:
        near = difflib.get_close_matches(name[:64], [*self._by_name, *self._aliases], n=3)
        return f" (did you mean {', '.join(near)}?)" if near else ""

    def enter(self, op: Op) -> Op:
        for name in (op.name, *op.aliases):
            if name in self._by_name or name in self._aliases:
                raise ValueError(f"two ops are called {name!r}")
            if name in self.refused:
                raise ValueError(f"{name!r} is refused, and cannot be an op as well")
        if hasattr(self, op.name):
            raise ValueError(f"{op.name!r} is a name of the registry's own")
        setattr(self, op.name, op)
        self._by_name[op.name] = op
        self._aliases.update(dict.fromkeys(op.aliases, op))
        return op

    def refuse(self, reason: str, *names: str) -> None:
        """Answer these names with the reason why no op bears them."""
        for name in names:
            if name in self:
                raise ValueError(f"{name!r} is an op, and cannot be refused")
            self.refused[name] = reason

    def __contains__(self, name: str) -> bool:
        return name in self._by_name or name in self._aliases

    def __iter__(self) -> Iterator[Op]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)


ops = Registry()


def define(name: str, doc: str, **record: Any) -> Op:
    """Enter an op into the catalogue. The fields are those of `Op`."""
    return ops.enter(Op(name, doc, **record))


# Leaves and projections are the grammar of graphs, not members of the catalogue.
def _input_shape(*, name: str, shape: Shape, dtype: str) -> Shape:
    return shape


INPUT = Op(
    "input",
    "A tensor that is given when the graph runs.",
    shape=_input_shape,
    returns=lambda **at: DTYPES[at["dtype"]],
)
CONSTANT = Op("constant", "A tensor that is part of the graph.")


@dataclass(frozen=True, eq=False)
class _Result(Op):
    def infer(self, inputs: Sequence[Node], attrs: Attrs) -> tuple[Spec, ...]:
        return (inputs[0].specs[attrs["index"]],)


RESULT = _Result(
    "result",
    "One result of an op that has several.",
    kernel=lambda several, *, index: several[index],
    view=True,
)
