"""The calls: what a client can ask of a graph. Each is a function that emits the nodes of its answer.

    value      forward only                          jvp       forward mode
    grad       one reverse sweep                     taylor    Taylor mode
    jacobian   basis vectors through jvp or vjp      hvp       forward over reverse
    hessian    basis vectors through hvp             nth       reverse once, then Taylor mode
    laplacian  second order along each axis          tensors   choices of basis vectors through forward mode

A `Question` is a request. `compile_question` builds the typed graph, lets the call emit, and plans what came out; of
tensors it looks at shapes and dtypes only. The `Compiled` then runs on the question's tensors.

Calls are written for one example. Cotangents, tangents and the like (*seeds*) are leaves of the graph, under names with
a slash, which no posted id can have. Afterwards batching adds the leading axes that the tensors really have: first that
of `batch`, then that of a stack of seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from engine.basis import Cutting
from engine.compressed import sparse_hessian, sparse_jacobian
from engine.core import INPUT, Graph, Node, ops
from engine.derivative import ones, or_zero
from engine.errors import (
    DtypeMismatch,
    EngineError,
    GradOutputsRequired,
    InvalidGraph,
    LimitExceeded,
    NonFinite,
    NotDifferentiable,
    NotScalar,
    ShapeMismatch,
    UnknownName,
    pointer_to,
)
from engine.execute import OFF_THE_ROAD, refuse_non_finite, run
from engine.higher import check_size, derivative_by, second_derivatives
from engine.jacobians import jacobian
from engine.limits import Limits
from engine.optimise import optimised
from engine.plan import WARM, Plan, make_plan
from engine.program import Built, Program, build, read_ref, to_program
from engine.source import is_short, written_answer
from engine.tensors import Tensor
from engine.transforms.batch import batch
from engine.transforms.forward import forward
from engine.transforms.paths import unholomorphic
from engine.transforms.reverse import reverse
from engine.transforms.taylor import taylor
from engine.types import Array, Dtype, Spec, Tick, is_inexact
from engine.warnings import Notice

NODE_BYTES = 1_000
"""What a node takes, with what refers to it (measured over graphs of 10 to 10,000 nodes)."""

STEP_BYTES = 300
"""What a step takes once it is written as source (measured: 40 to 260 over chains of 100 to 20,000 nodes)."""

SEEDS: dict[str, tuple[str, ...]] = {
    "grad": ("grad_outputs", "accumulate"),
    "jvp": ("tangents",),
    "hvp": ("vectors",),
    "taylor": ("direction",),
}
"""The fields of a request that hold tensors beside the inputs of the graph, for the calls that take any."""
TENSOR_FIELDS = ("inputs", *(role for roles in SEEDS.values() for role in roles))
"""All fields of requests that hold tensors by name."""

Tree: TypeAlias = Any
"""Dicts and lists, with nodes, places or numbers (arrays and floats) at the leaves."""


@dataclass(frozen=True)
class Question:
    """A request. To compile it, shapes, dtypes and requires_grad of its tensors are all that counts.

    `seeds` holds tensors that are no inputs of the graph, by the field that carries them, which is one of SEEDS.
    `wrt` None means every floating or complex input that does not say otherwise.
    """

    call: str
    program: Program
    inputs: Mapping[str, Tensor]
    seeds: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    wrt: Sequence[str] | None = None
    batch: Sequence[str] = ()
    order: int = 1
    path: Sequence[str] | None = None
    mode: str = "auto"
    sparse: bool = False
    """Whether Jacobians and Hessians come as their nonzeros."""
    ones: bool = False
    """Whether an output without a cotangent gets ones."""
    nan_policy: str = "ieee"
    optimise: bool = True
    """Never under nan_policy "raise", which is to name the first posted node that gave a NaN."""

    @property
    def is_optimised(self) -> bool:
        return self.optimise and self.nan_policy != "raise"

    @property
    def signature(self) -> Hashable:
        """What a compiled form depends on: everything but the numbers. Of the program it tells which object it is."""
        seeds = tuple((role, _signature_of(tensors)) for role, tensors in self.seeds.items())
        path = None if self.path is None else tuple(self.path)
        wrt = None if self.wrt is None else tuple(self.wrt)
        how = (self.order, path, self.mode, self.sparse, self.ones, self.nan_policy, self.optimise)
        return (self.call, id(self.program), _signature_of(self.inputs), seeds, wrt, tuple(self.batch), *how)

    def without_numbers(self) -> Question:
        """A question of the same signature whose tensors take no memory."""
        seeds = {role: _hollow(tensors) for role, tensors in self.seeds.items()}
        return replace(self, inputs=_hollow(self.inputs), seeds=seeds)


def _signature_of(tensors: Mapping[str, Tensor]) -> Hashable:
    return tuple(
        (name, each.array.shape, each.array.dtype.char, each.typed, each.requires_grad)
        for name, each in tensors.items()
    )


def _hollow(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the same specs, of zeros that are stretched."""
    return {
        name: replace(each, array=np.broadcast_to(np.zeros((), each.array.dtype), each.array.shape))
        for name, each in tensors.items()
    }


class Answer(NamedTuple):
    """What a call emits: nodes, and arrays that no tensor changes. Stacks of seeds act on `derived` only."""

    plain: dict[str, Tree]
    derived: dict[str, Tree]


class Place(NamedTuple):
    """The leaf of a compiled answer: which of the plan's results goes here."""

    at: int


@dataclass(eq=False)
class Compiled:
    """A question in a form that runs: a plan, and the tree that its results fill."""

    question: Question
    built: Built
    tree: Tree
    """The answer, with a Place at each leaf, or an array where that is known already."""
    derivative: Mapping[str, Node]
    """The nodes of the derivative, by names that are fit for outputs: such as can be differentiated again."""
    results: Sequence[Node]
    plan: Plan
    nodes_removed: int = 0
    """How many fewer nodes run than the graph and its derivative have."""
    alarms: Mapping[Node, Notice] = field(default_factory=dict)
    """What rules have to say where a node turns out true (engine.blame)."""
    fixed: Sequence[Array] = ()
    """The arrays among the leaves of `tree`."""
    _written: Callable[[Mapping[str, Array]], Tree] | None = None
    """The plan and the tree as one function of source, once there is one: where a run takes microseconds, so does
    filling a tree."""

    @property
    def answer_bytes(self) -> int:
        """Bytes of all tensors of the answer."""
        return sum(node.spec.nbytes for node in self.results) + sum(each.nbytes for each in self.fixed)

    def run(self, tensors: Mapping[str, Array], tick: Tick | None = None, threads: int = 1) -> Tree:
        """The answer: scalars of float64 are floats at its leaves, all else is arrays. `tensors` as `bind` gives them.

        Raises what kernels refuse.
        """
        if self._written is None and self._is_warm():
            self._written, self.plan.runs = written_answer(self.plan, self.tree), WARM
        if self._written is not None:
            if tick is not None:
                tick()
            try:
                return self._written(tensors)
            except OFF_THE_ROAD:
                pass  # the plan's own run knows what to do then, or whom to blame
        watch = refuse_non_finite if self.question.nan_policy == "raise" else None
        try:
            results = run(self.plan, tensors, tick, watch=watch, threads=threads)
        except NonFinite as error:
            self._say_whose_derivative(error)
            raise
        found = [each.item() if is_float else each for each, is_float in zip(results, self.plan.floats, strict=True)]
        return map_tree(self.tree, lambda leaf: found[leaf.at] if isinstance(leaf, Place) else leaf)

    def _is_warm(self) -> bool:
        """Whether the run to come is the first that a function pays for."""
        return self.plan.runs == WARM - 1 and self.question.nan_policy != "raise" and is_short(self.plan)

    def _say_whose_derivative(self, error: NonFinite) -> None:
        """Name the posted op where it was one of its derivative's, or of its functions', that gave the number."""
        statement = self.question.program.by_id.get(error.node or "")
        if statement is not None and statement.functions:
            error.detail = f"in what {statement.op.name} runs: {error.detail}"
        elif statement is not None and not error.detail.startswith(f"{statement.op.name} "):
            error.detail = f"the derivative of {statement.op.name}: {error.detail}"

    @cached_property
    def nbytes(self) -> int:
        """About how much memory it takes, or will take: what nodes and steps take on average, and the constants."""
        graphs = [self.built.graph, *self.built.graph.offshoots]
        nodes = [node for graph in graphs for node in graph.nodes]
        constants = sum(node.value.nbytes for node in nodes if node.value is not None)
        written = STEP_BYTES * sum(len(piece.steps) for piece in self.plan.pieces)
        return NODE_BYTES * (len(nodes) + 10) + written + constants + sum(each.nbytes for each in self.fixed)

    def lasting(self) -> Compiled:
        """The same, to be kept for equal questions: without this question's numbers and clock."""
        for graph in (self.built.graph, *self.built.graph.offshoots):
            graph.settle()
        return replace(self, question=self.question.without_numbers())

    def come_apart(self) -> None:
        """Be of no more use, and freed with the last reference: a graph and its nodes refer to one another, so they
        would stay until the garbage collector looks at all that has lived long."""
        self.built.graph.come_apart()

    def bind(self, question: Question | None = None) -> dict[str, Array]:
        """The tensors of a question of this signature (its own, if none is given) under the names of their leaves, in
        the dtypes that the leaves have."""
        question = question or self.question
        tensors = dict(question.inputs)
        for role, seeds in question.seeds.items():
            tensors.update({_leaf_name(role, name): seed for name, seed in seeds.items()})
        dtypes = self._leaf_dtypes
        return {
            name: array if (array := each.array).dtype is dtypes[name] else array.astype(dtypes[name], copy=False)
            for name, each in tensors.items()
            if name in dtypes
        }

    @cached_property
    def _leaf_dtypes(self) -> dict[str, Dtype]:
        return {name: leaf.dtype for name, leaf in self.built.graph.leaves.items()}

    def derivative_program(self, question: Question | None = None) -> Program:
        """The program that computes the derivative from the graph's own inputs; seeds are constants in it."""
        tensors = self.bind(question)
        leaves = [node for node in self.built.graph.nodes if node.op is INPUT]
        seeds = [node for node in leaves if "/" in node.attrs["name"] and node.attrs["name"] in tensors]
        return to_program(self.derivative, {node: Tensor(tensors[node.attrs["name"]], typed=True) for node in seeds})


def compile_question(question: Question, limits: Limits, tick: Tick | None = None) -> Compiled:
    """Build, differentiate, batch and plan. Raises what the graph, the call or the limits refuse.

    A call that sweeps over a basis is compiled again, with the basis cut finer, until its plan is within the limits.
    """
    cutting: Cutting | None = Cutting()
    while True:
        assert cutting is not None
        try:
            return _compile(question, Graph(limits=limits, tick=tick, masked=question.nan_policy == "mask"), cutting)
        except LimitExceeded as error:
            cutting = cutting.finer(error)
            if cutting is None:
                raise


def _compile(question: Question, graph: Graph, cutting: Cutting) -> Compiled:
    scene = Scene(question, graph, cutting)
    answer = with_axes(CALLS[question.call](scene), scene)
    scene.graph.origin = None
    names = _output_names(answer.derived, set(scene.built.inputs))
    answer, live = scene.lean(answer)
    leaves: list[Node] = []
    fixed: list[Array] = []

    def place(leaf: Node | Array) -> Place | Array:
        if not isinstance(leaf, Node):
            fixed.append(leaf)
            return leaf
        leaves.append(leaf)
        return Place(len(leaves) - 1)

    tree = map_tree(answer.plain | answer.derived, place)
    plan, removed = make_plan(leaves, live, watched=question.nan_policy == "raise"), max(scene.removed, 0)
    return Compiled(question, scene.built, tree, names, leaves, plan, removed, _alarms(scene), fixed)


def _alarms(scene: Scene) -> dict[Node, Notice]:
    """The alarms of the graph, under the axis of `batch` where there is one."""
    alarms = scene.graph.alarms
    nodes = batch(scene.batched, list(alarms)) if scene.batched else list(alarms)
    return dict(zip(nodes, alarms.values(), strict=True))


LEAVES = (float, np.ndarray, Node, Place)


def map_tree(tree: Tree, leaf: Callable[[Any], Any]) -> Tree:
    """The same tree with `leaf` applied to its nodes, places, arrays or floats; integers and strings in it stay."""
    if isinstance(tree, dict):
        return {name: map_tree(each, leaf) for name, each in tree.items()}
    if isinstance(tree, list):
        return [map_tree(each, leaf) for each in tree]
    return leaf(tree) if isinstance(tree, LEAVES) else tree


def _output_names(derived: Tree, taken: set[str]) -> dict[str, Node]:
    """A name for each leaf from where it stands: gradients_x; with a number where that is taken."""
    names: dict[str, Node] = {}
    for number, (path, node) in enumerate(_leaves(derived, ())):
        stem = "_".join(path).replace(".", "_")[:50]
        name = stem if stem not in taken else f"{stem}_{number}"
        while name in taken:
            name += "_"
        taken.add(name)
        names[name] = node
    return names


def _leaves(tree: Tree, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Node]]:
    if isinstance(tree, Node):
        yield path, tree
    elif isinstance(tree, dict | list):
        for name, each in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from _leaves(each, (*path, str(name)))


class Scene:
    """The typed graph of a question, and the seeds that its call asks for."""

    def __init__(self, question: Question, graph: Graph, cutting: Cutting | None = None) -> None:
        self.question = question
        self.cutting = cutting or Cutting()
        self.graph = graph
        self.batch_size = _batch_size(question)
        self.cutting.examples = 1 if self.batch_size is None else self.batch_size
        _check_names(question, graph.limits)
        specs = {name: self._example_spec(name, tensor.spec) for name, tensor in question.inputs.items()}
        marks = [name for name in (*(question.wrt or ()), *(question.path or ())) if name not in specs]
        self.built = build(question.program, specs, graph, marks)
        self.outputs = self._find_outputs()
        self.wrt = self._find_wrt()
        self.removed = 0
        """How many nodes optimising took away."""
        self._make_safe()
        self.batched: dict[Node, Node] = {
            self.built.inputs[name]: graph.input(name, question.inputs[name].spec) for name in question.batch
        }
        self.stacked: dict[Node, Node] = {}

    def _example_spec(self, name: str, spec: Spec) -> Spec:
        return Spec(spec.shape[1:], spec.dtype) if name in self.question.batch else spec

    def _find_outputs(self) -> dict[str, Node]:
        try:
            return self.built.outputs
        except EngineError as error:
            error.pointer = "/outputs"
            raise

    def _find_wrt(self) -> dict[str, Node]:
        if self.question.call == "value":
            return {}
        names, field_name = self.question.wrt, "wrt"
        if self.question.path is not None:
            names, field_name = self.question.path, "path"
        if names is None:
            return {name: self.built.inputs[name] for name in tracked_inputs(self.question)}
        return {name: self._find_one(name, f"/{field_name}/{at}") for at, name in enumerate(names)}

    def _find_one(self, name: str, pointer: str) -> Node:
        try:
            node = self.built.find(read_ref(name))
        except EngineError as error:
            error.pointer = pointer
            raise
        if not is_inexact(node.dtype):
            raise NotDifferentiable(
                f"{name} has dtype {node.dtype.name}; only floating-point tensors have gradients",
                pointer=pointer,
            )
        return node

    def _make_safe(self) -> None:
        """Optimise what is to be differentiated."""
        names, marks = list(self.outputs), list(self.wrt)
        nodes, _ = self._optimised([*self.outputs.values(), *self.wrt.values()], "before")
        found = iter(nodes)
        self.outputs = dict(zip(names, found, strict=False))
        self.wrt = dict(zip(marks, found, strict=True))

    def lean(self, answer: Answer) -> tuple[Answer, list[Node] | None]:
        """The answer, optimised, and what it needs, in the order in which to compute it."""
        trees = [answer.plain, answer.derived]
        nodes, live = self._optimised([node for _, node in _leaves(trees, ())], "after")
        found = iter(nodes)
        plain, derived = map_tree(trees, lambda leaf: next(found) if isinstance(leaf, Node) else leaf)
        return Answer(plain, derived), live

    def _optimised(self, nodes: list[Node], stage: str) -> tuple[list[Node], list[Node] | None]:
        if not self.question.is_optimised or not nodes:
            return nodes, None
        found = optimised(nodes, stage)
        self.removed += found.removed
        return found.nodes, found.live

    @property
    def differentiable(self) -> dict[str, Node]:
        """Outputs that can have a derivative. Raises NotDifferentiable when there is none."""
        found = {name: node for name, node in self.outputs.items() if is_inexact(node.dtype)}
        if not found:
            listed = ", ".join(f"{name} ({node.dtype.name})" for name, node in self.outputs.items())
            raise NotDifferentiable(f"no output is a floating-point tensor: {listed}")
        return found

    def single(self, what: str = "output") -> tuple[str, Node]:
        """The one output of a call that takes no more, and its name. Raises NotScalar."""
        if len(self.outputs) != 1:
            raise NotScalar(f"this call takes one {what}, the graph has {len(self.outputs)}", pointer="/outputs")
        ((name, node),) = self.differentiable.items()
        return name, node

    @property
    def scalar(self) -> Node:
        """The one output of a call that needs a scalar. Raises NotScalar."""
        name, node = self.single("scalar output")
        if node.size != 1:
            raise NotScalar(f"this call takes a scalar output; {name} has shape {list(node.shape)}", node=name)
        if is_complex(node):
            raise NotScalar(f"this call takes a real output; {name} is {node.dtype.name}: {REAL_PARTS}", node=name)
        return node

    def gradients(self) -> dict[str, Node]:
        """The gradient of the scalar output by each wrt."""
        output = self.scalar
        found = reverse([(output, ones(output))], list(self.wrt.values()))
        return {name: or_zero(g, x) for (name, x), g in zip(self.wrt.items(), found, strict=True)}

    def seeds(self, role: str, partners: Mapping[str, Node], per_example: Callable[[str], bool]) -> dict[str, Node]:
        """A leaf for each seed of this role, in the spec of its partner. Raises what does not fit.

        `per_example` tells whether the seed of that name has the batch axis where there is one.
        """
        found = {}
        for name, tensor in self.question.seeds.get(role, {}).items():
            if name not in partners:
                known = ", ".join(partners)[:150] or "none"
                raise UnknownName(
                    f"{role} names {name[:64]!r}; expected one of: {known}", pointer=pointer_to(role, name)
                )
            try:
                found[name] = self._seed(role, name, partners[name], tensor, per_example(name))
            except EngineError as error:
                error.pointer = pointer_to(role, name)
                raise
        return found

    def _seed(self, role: str, name: str, partner: Node, tensor: Tensor, per_example: bool) -> Node:
        leaf = _leaf_name(role, name)
        dtype = _seed_dtype(tensor, partner.dtype)
        node = innermost = self.graph.input(leaf, Spec(partner.shape, dtype))
        if self.batch_size is not None and per_example:
            node = self.graph.input(leaf, Spec((self.batch_size, *partner.shape), dtype))
            self.batched[innermost] = node
        given = tensor.spec.shape
        if given != node.shape:
            if given[1:] != node.shape or not given:
                raise ShapeMismatch(
                    f"expected shape {list(node.shape)}, or that with one more leading axis, got {list(given)}"
                )
            self.stacked[node] = self.graph.input(leaf, Spec(given, dtype))
        return innermost

    def is_batched(self, name: str) -> bool:
        return name in self.question.batch


def _leaf_name(role: str, name: str) -> str:
    return f"{role}/{name}"


def _seed_dtype(tensor: Tensor, dtype: Dtype) -> Dtype:
    """The partner's dtype, which a seed that says its own must have, or fit into."""
    given = tensor.spec.dtype
    if (tensor.typed and given != dtype) or (given.kind == "c" and dtype.kind != "c"):
        raise DtypeMismatch(f"expected dtype {dtype.name}, got {given.name}")
    return dtype


def tracked_inputs(question: Question) -> list[str]:
    """Inputs that are differentiated by when none are named: floating or complex, and not said to be otherwise."""
    inputs = question.inputs.items()
    return [name for name, tensor in inputs if is_inexact(tensor.spec.dtype) and tensor.requires_grad is not False]


def _check_names(question: Question, limits: Limits) -> None:
    for what, count in (("inputs", len(question.inputs)), ("outputs", len(question.program.outputs))):
        if count > limits.names:
            raise LimitExceeded("names", limits.names, count, f"{what} of the graph")
    for name, tensor in question.inputs.items():
        if tensor.requires_grad and not is_inexact(tensor.spec.dtype):
            raise NotDifferentiable(
                f"only floating-point tensors can require gradients; {name} has dtype {tensor.spec.dtype.name}",
                pointer=pointer_to("inputs", name, "requires_grad"),
            )


def _batch_size(question: Question) -> int | None:
    """The length of the leading axis that all inputs in `batch` share. Raises UnknownName, ShapeMismatch."""
    size: int | None = None
    for at, name in enumerate(question.batch):
        if name not in question.inputs:
            raise UnknownName(f"batch names {name[:64]!r}, which is no input", pointer=f"/batch/{at}")
        shape = question.inputs[name].spec.shape
        if not shape or size not in (None, shape[0]):
            want = "at least one axis" if not shape else f"the batch's length {size} in front"
            raise ShapeMismatch(f"{name} has shape {list(shape)}; expected {want}", pointer=pointer_to("inputs", name))
        size = shape[0]
    return size


REAL_PARTS = "take real(…), imag(…) or abs(…) of it"


def is_complex(node: Node) -> bool:
    return node.dtype.kind == "c"


def with_axes(answer: Answer, scene: Scene) -> Answer:
    """The answer with the leading axes of `batch`, then of stacks of seeds; and `accumulate` added in between."""
    plain, derived = answer
    if scene.batched:
        plain, derived = _batched(plain, scene.batched), _batched(derived, scene.batched)
    if "gradients" in derived:
        kept = scene.seeds("accumulate", derived["gradients"], lambda name: False)
        derived = derived | {
            "gradients": {name: g + kept[name] if name in kept else g for name, g in derived["gradients"].items()}
        }
    if scene.stacked:
        derived = _batched(derived, _one_size(scene.stacked))
    return Answer(plain, derived)


def _one_size(stacked: Mapping[Node, Node]) -> Mapping[Node, Node]:
    sizes = {node.shape[0] for node in stacked.values()}
    if len(sizes) > 1:
        listed = ", ".join(f"{node.attrs['name']} {list(node.shape)}" for node in stacked.values())
        raise ShapeMismatch(f"stacks differ in length: {listed}")
    return stacked


def _batched(tree: Tree, replacements: Mapping[Node, Node]) -> Tree:
    nodes = [node for _, node in _leaves(tree, ())]
    new = iter(batch(replacements, nodes))
    return map_tree(tree, lambda leaf: next(new) if isinstance(leaf, Node) else leaf)


# The calls


def _value(scene: Scene) -> Answer:
    return Answer({"values": dict(scene.outputs)}, {})


def _grad(scene: Scene) -> Answer:
    outputs = scene.differentiable
    given = scene.seeds("grad_outputs", outputs, lambda name: True)
    pairs = [(node, given.get(name) or _implied_cotangent(name, node, scene)) for name, node in outputs.items()]
    found = reverse(pairs, list(scene.wrt.values()))
    gradients = {name: or_zero(g, x) for (name, x), g in zip(scene.wrt.items(), found, strict=True)}
    return Answer({"values": dict(scene.outputs)}, {"gradients": gradients})


def _implied_cotangent(name: str, node: Node, scene: Scene) -> Node:
    """One, for a real output of a single element, as PyTorch implies it; ones where they are asked for."""
    if (node.size != 1 or is_complex(node)) and not scene.question.ones:
        otherwise = REAL_PARTS if is_complex(node) else "reduce it to a scalar in the graph (sum, mean)"
        what = f"is {node.dtype.name}" if node.size == 1 else f"has shape {list(node.shape)}"
        raise GradOutputsRequired(
            f'output {name} {what}: give grad_outputs for it, a tensor of that shape or "ones", or {otherwise}',
            node=name,
            pointer="/grad_outputs",
        )
    return ones(node)


def _jvp(scene: Scene) -> Answer:
    tangents = _directions(scene, "tangents")
    outputs = scene.differentiable
    found = forward(tangents, list(outputs.values()))
    moved = {name: or_zero(t, node) for (name, node), t in zip(outputs.items(), found, strict=True)}
    return Answer({"values": dict(scene.outputs)}, {"tangents": moved})


def _directions(scene: Scene, role: str) -> dict[Node, Node]:
    """Tangents of inputs, by node; an input without one stands still."""
    inputs = {name: node for name, node in scene.built.inputs.items() if is_inexact(node.dtype)}
    given = scene.seeds(role, inputs, scene.is_batched)
    if not given:
        raise InvalidGraph(f"{role} names no input; expected a tensor for at least one", pointer=f"/{role}")
    return {inputs[name]: t for name, t in given.items()}


def _hvp(scene: Scene) -> Answer:
    gradients = scene.gradients()
    given = scene.seeds("vectors", scene.wrt, scene.is_batched)
    if not given:
        raise InvalidGraph("vectors names no wrt; expected a tensor for at least one", pointer="/vectors")
    found = forward({scene.wrt[name]: v for name, v in given.items()}, list(gradients.values()))
    products = {name: or_zero(t, scene.wrt[name]) for name, t in zip(gradients, found, strict=True)}
    return Answer({"values": dict(scene.outputs), "gradients": gradients}, {"hvp": products})


def _taylor(scene: Scene) -> Answer:
    order = _bounded(scene.question.order, scene.graph.limits.taylor_order, "taylor_order")
    direction = _directions(scene, "direction")
    outputs = scene.differentiable
    series = taylor(direction, list(outputs.values()), order)
    stacked = {
        name: ops.stack(*[or_zero(c, node) for c in coefficients], axis=0)
        for (name, node), coefficients in zip(outputs.items(), series, strict=True)
    }
    return Answer({"values": dict(scene.outputs)}, {"coefficients": stacked})


def _bounded(order: int, limit: int, name: str) -> int:
    if order > limit:
        raise LimitExceeded(name, limit, order, "order")
    return order


def _nth(scene: Scene) -> Answer:
    """Order k is the gradient of the sum of order k − 1: one reverse sweep, and then only directions of ones."""
    derivatives = _along_path(scene) if scene.question.path is not None else _of_each(scene)
    return Answer({"values": dict(scene.outputs)}, {"derivatives": derivatives})


def _first_order(scene: Scene) -> dict[str, Node]:
    outputs = scene.differentiable.values()
    for name, node in scene.differentiable.items():
        if is_complex(node):
            raise NotDifferentiable(
                f"nth sums up outputs to one real number; {name} is {node.dtype.name}: {REAL_PARTS}"
            )
    found = reverse([(node, ones(node)) for node in outputs], list(scene.wrt.values()))
    return {name: or_zero(g, x) for (name, x), g in zip(scene.wrt.items(), found, strict=True)}


def _of_each(scene: Scene) -> list[Tree]:
    """∇(1ᵀ…) of order k is k − 1 times d/dt of the gradient at x + t·1: its Taylor coefficient times (k − 1)!."""
    order = _bounded(scene.question.order, scene.graph.limits.taylor_order, "taylor_order")
    rows = []
    for name, first in _first_order(scene).items():
        x = scene.wrt[name]
        if order > 1:
            _refuse_complex(name, x, "order 2 is the gradient of the sum of order 1, which is complex")
        (series,) = taylor({x: ones(x)}, [first], order - 1)
        for k, coefficient in enumerate(series):
            value = coefficient if coefficient is None or k < 2 else coefficient * float(math.factorial(k))
            rows.append({"order": k + 1, "wrt": [name] * (k + 1), "value": or_zero(value, x)})
    return rows


def _along_path(scene: Scene) -> list[Tree]:
    """Partial derivatives commute: every prefix is a mixed Taylor coefficient of the gradient by its last name.

    One name after the other is expanded, each as far as the path repeats it: n times the same name costs about n²,
    where moving n times along it costs more, and more yet with other names in between.
    """
    path = list(scene.question.path or ())
    _bounded(len(path), scene.graph.limits.nested_order, "nested_order")
    for name in path[:-1]:
        _refuse_complex(name, scene.wrt[name], "what follows is the gradient of the sum of this one, which is complex")
    names = list(dict.fromkeys(path))
    prefixes = [Mixed(name, tuple(map(path[:k].count, names))) for k, name in enumerate(path)]
    known: dict[Mixed, Node | None] = {Mixed(name, ()): g for name, g in _first_order(scene).items()}
    for at, name in enumerate(names):
        x, wanted = scene.wrt[name], dict.fromkeys(Mixed(by, orders[: at + 1]) for by, orders in prefixes)
        known = _expanded({x: ones(x)}, known, list(wanted))
    rows = []
    for k, each in enumerate(prefixes):
        coefficient, factor = known[each], math.prod(map(math.factorial, each.orders))
        value = coefficient if coefficient is None or factor == 1 else coefficient * float(factor)
        rows.append({"order": k + 1, "wrt": path[: k + 1], "value": or_zero(value, scene.wrt[each.by])})
    return rows


def _refuse_complex(name: str, x: Node, reason: str) -> None:
    if is_complex(x):
        raise NotDifferentiable(f"{name} is {x.dtype.name}: {reason}; hvp and jvp take any direction", node=name)


def _refuse_unholomorphic(by: str, x: Node, name: str, output: Node) -> None:
    """A complex output has one complex derivative by a complex x only where it is holomorphic."""
    culprit = unholomorphic(x, output) if is_complex(x) and is_complex(output) else None
    if culprit is not None:
        raise NotDifferentiable(
            f"{name} is not holomorphic in {by}: {culprit.op.name} is on the way, so no one complex number is its "
            f"derivative; {REAL_PARTS}, or use jvp",
            node=culprit.origin,
        )


class Mixed(NamedTuple):
    """A Taylor coefficient of the gradient by one name: its order in each of some names."""

    by: str
    orders: tuple[int, ...]


def _expanded(
    direction: Mapping[Node, Node], known: Mapping[Mixed, Node | None], wanted: Sequence[Mixed]
) -> dict[Mixed, Node | None]:
    """The `wanted` coefficients, which have an order more in their lists than the `known` ones they come from."""
    orders: dict[Mixed, int] = {}
    for by, (*before, last) in wanted:
        source = Mixed(by, tuple(before))
        orders[source] = max(last, orders.get(source, 0))
    moving = [(each, node) for each in orders if (node := known[each]) is not None]
    found = taylor(direction, [node for _, node in moving], [orders[each] for each, _ in moving])
    series = {each: coefficients for (each, _), coefficients in zip(moving, found, strict=True)}
    return {
        each: series[source][each.orders[-1]] if (source := Mixed(each.by, each.orders[:-1])) in series else None
        for each in wanted
    }


def _jacobian(scene: Scene) -> Answer:
    """∂output/∂x in shape output + x."""
    for name, output in scene.differentiable.items():
        for by, x in scene.wrt.items():
            _refuse_unholomorphic(by, x, name, output)
    way = sparse_jacobian if scene.question.sparse else jacobian
    table = way(scene.differentiable, scene.wrt, scene.question.mode, scene.cutting)
    return Answer({"values": dict(scene.outputs)}, {"jacobian": table})


def _hessian(scene: Scene) -> Answer:
    """The derivative of every gradient by every wrt, by columns."""
    for name, x in scene.wrt.items():
        _refuse_complex(name, x, "a Hessian has four real numbers for each pair of complex ones")
    gradients = scene.gradients()
    table: Tree
    if scene.question.sparse:
        table = sparse_hessian(gradients, scene.wrt, scene.cutting)
    else:
        table = jacobian(gradients, scene.wrt, "forward", scene.cutting)
    return Answer({"values": dict(scene.outputs), "gradients": gradients}, {"hessian": table})


def _laplacian(scene: Scene) -> Answer:
    """Second derivatives by each element of a wrt, and their sum; of an output of any shape, element by element."""
    for name, x in scene.wrt.items():
        _refuse_complex(name, x, "a Laplacian is the sum of second derivatives by real numbers")
    _, output = scene.single()
    diagonal = second_derivatives(output, scene.wrt, scene.cutting)
    sums = {name: ops.sum(block, axis=tuple(range(output.rank, block.rank))) for name, block in diagonal.items()}
    return Answer({"values": dict(scene.outputs)}, {"laplacian": sums, "diagonal": diagonal})


def _tensors(scene: Scene) -> Answer:
    """All orders by each wrt, or the prefixes of a path, each in shape output + the shapes of its wrts."""
    for name, x in scene.wrt.items():
        _refuse_complex(name, x, "derivatives of higher order are taken by real numbers")
    _, output = scene.single()
    path = scene.question.path
    order = len(path) if path is not None else scene.question.order
    _bounded(order, scene.graph.limits.tensor_order, "tensor_order")
    paths = [list(path)] if path is not None else [[name] * order for name in scene.wrt]
    wanted = [names[:k] for names in paths for k in range(1, order + 1)]
    for names in wanted:
        check_size(output, [scene.wrt[name] for name in names])
    rows = [_tensor(scene, output, names) for names in wanted]
    return Answer({"values": dict(scene.outputs)}, {"derivatives": rows})


def _tensor(scene: Scene, output: Node, names: list[str]) -> Tree:
    value = derivative_by(output, [scene.wrt[name] for name in names], scene.cutting)
    return {"order": len(names), "wrt": names, "value": value}


CALLS: dict[str, Callable[[Scene], Answer]] = {
    "value": _value,
    "grad": _grad,
    "jvp": _jvp,
    "jacobian": _jacobian,
    "hessian": _hessian,
    "hvp": _hvp,
    "nth": _nth,
    "taylor": _taylor,
    "laplacian": _laplacian,
    "tensors": _tensors,
}
