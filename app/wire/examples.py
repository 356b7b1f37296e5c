"""Requests to try, for every call: what "Try it out" in /docs sends, and what the tests send.

The first ones of GradRequest and NthRequest are the cells of a first autograd tutorial, in its order.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from app.wire.models import (
    CheckRequest,
    GradRequest,
    HessianRequest,
    HvpRequest,
    InspectRequest,
    JacobianRequest,
    JvpRequest,
    LaplacianRequest,
    NthRequest,
    RegisterRequest,
    TaylorRequest,
    TensorsRequest,
    ValueRequest,
)


def _example(summary: str, **body: Any) -> dict[str, Any]:
    return {"summary": summary, "value": body}


CUBE = {"nodes": [{"id": "y", "op": "pow", "inputs": ["x", 3]}]}

EXAMPLES: dict[type[BaseModel], dict[str, dict[str, Any]]] = {
    GradRequest: {
        "vector": _example(
            "x³ on a vector, with a gradient vector: [3, 12, 27]",
            graph=CUBE,
            inputs={"x": [1, 2, 3]},
            grad_outputs={"y": [1, 1, 1]},
        ),
        "square": _example(
            "x.grad of x² is 2x",
            graph={"nodes": [{"id": "y", "op": "pow", "inputs": ["x", 2]}]},
            inputs={"x": {"data": [2.0], "requires_grad": True}},
            include=["nodes"],
        ),
        "detach": _example(
            "detach(x)·x: the detached factor is a constant", expression="y = detach(x) * x", inputs={"x": 5}
        ),
        "no_grad": _example(
            "A node under no_grad does not track",
            graph={
                "nodes": [
                    {"id": "a", "op": "multiply", "inputs": ["x", "x"], "no_grad": True},
                    {"id": "y", "op": "multiply", "inputs": ["a", "x"]},
                ]
            },
            inputs={"x": 3},
            include=["nodes"],
        ),
        "loop": _example(
            "A recurrent network, its step a function: gradients reach W, which it takes from around it",
            graph={
                "functions": {
                    "step": {
                        "inputs": ["h", "x"],
                        "nodes": [
                            {"id": "a", "op": "matmul", "inputs": ["W", "h"]},
                            {"id": "b", "op": "add", "inputs": ["a", "x"]},
                            {"id": "new", "op": "tanh", "inputs": ["b"]},
                        ],
                        "outputs": ["new", "b"],
                    }
                },
                "nodes": [
                    {"id": "s", "op": "scan", "inputs": ["h0", "xs"], "attrs": {"body_fn": "step"}},
                    {"id": "loss", "op": "sum", "inputs": ["s.new"]},
                ],
            },
            inputs={"W": [[0.5, -0.2], [0.1, 0.3]], "h0": [0, 0], "xs": [[1, 0], [0, 1], [1, 1]]},
            wrt=["W"],
        ),
        "branch": _example(
            "A branch, in text: only the one that is taken counts",
            expression="root(x) = sqrt(x)\nnone(x) = 0 * x\ny = cond(x > 0, root, none, x)",
            inputs={"x": -4},
        ),
        "accumulate": _example(
            "Accumulation: an earlier gradient of 6 is added; to zero it, leave it out",
            expression="y = x**2",
            inputs={"x": [3]},
            accumulate={"x": [6]},
        ),
        "regression": _example(
            "A loss in two lines, by its weights only",
            expression="h = tanh(x @ W)\nloss = mean((h - y)**2)",
            inputs={"x": [[0, 1], [1, 0], [1, 1]], "W": [[0.5], [-0.5]], "y": [[0], [1], [0.5]]},
            wrt=["W"],
        ),
        "per_example": _example(
            "Per-example gradients: the graph is written for one x, and there are two",
            expression="sum(w * x)**2",
            inputs={"w": [1, 1], "x": [[1, 2], [3, 4]]},
            batch=["x"],
            wrt=["w"],
        ),
    },
    NthRequest: {
        "second_order": _example("x³: 3x², then 6x", expression="y = x**3", inputs={"x": [2]}, order=2),
        "path": _example(
            "A mixed derivative, ∂³/∂x∂y²",
            expression="x**2 * y**3",
            inputs={"x": 1, "y": 2},
            path=["x", "y", "y"],
        ),
        "tenth": _example("sin(exp(x)) to order 10", expression="sin(exp(x))", inputs={"x": 0.5}, order=10),
    },
    ValueRequest: {
        "no_grad": _example(
            "Values only, as inside torch.no_grad()",
            expression="y = x * 2",
            inputs={"x": [5]},
            include=["nodes"],
        ),
        "non_finite": _example(
            "Non-finite numbers are strings", expression="y = log(x)", inputs={"x": [0, 1, "Infinity", "NaN"]}
        ),
    },
    JvpRequest: {
        "direction": _example(
            "The derivative of sin(x)·y along (1, 10)",
            expression="sin(x) * y",
            inputs={"x": 0, "y": 3},
            tangents={"x": 1, "y": 10},
        )
    },
    JacobianRequest: {
        "matrix": _example(
            "Of A·x² by x",
            expression="A @ (x * x)",
            inputs={"A": {"data": [[1, 2], [3, 4]], "requires_grad": False}, "x": [1, 2]},
        ),
        "sparse": _example(
            "Differences of neighbours, as nonzeros",
            expression="x[1:] - x[:-1]**2",
            inputs={"x": [1, 2, 3, 4]},
            sparse=True,
        ),
    },
    HessianRequest: {
        "blocks": _example("All blocks of x²·y", expression="x**2 * y", inputs={"x": 3, "y": 5}),
        "sparse": _example(
            "Rosenbrock's function: three diagonals",
            expression="sum(100 * (x[1:] - x[:-1]**2)**2 + (1 - x[:-1])**2)",
            inputs={"x": [1, 2, 3, 4]},
            sparse=True,
        ),
    },
    HvpRequest: {
        "cube": _example("6x·v for Σx³", expression="sum(x**3)", inputs={"x": [1, 2]}, vectors={"x": [1, 10]})
    },
    LaplacianRequest: {
        "harmonic": _example(
            "x³ − 3xy² is harmonic: 0, at two points",
            expression="p[0]**3 - 3 * p[0] * p[1]**2",
            inputs={"p": [[1, 2], [3, 1]]},
            batch=["p"],
        ),
        "diagonal": _example(
            "The diagonal of a Hessian that is not formed", expression="sum(exp(x) * x[0])", inputs={"x": [0, 1]}
        ),
    },
    TensorsRequest: {
        "third": _example(
            "All third derivatives of x₀²·x₁", expression="x[0]**2 * x[1]", inputs={"x": [3, 5]}, order=3
        ),
        "path": _example(
            "∂²/∂x∂y of a vector, in shape output + x + y",
            expression="x * sum(y * y)",
            inputs={"x": [1, 2], "y": [3, 4]},
            path=["x", "y"],
        ),
    },
    TaylorRequest: {
        "exponential": _example(
            "1, 1, 1/2, 1/6, 1/24", expression="exp(x)", inputs={"x": 0}, direction={"x": 1}, order=4
        )
    },
    CheckRequest: {"product": _example("Of Σ x·sin(x)", expression="sum(x * sin(x))", inputs={"x": [0.3, 1.7]})},
    RegisterRequest: {
        "model": _example(
            "A loss, kept under the name model",
            expression="h = tanh(x @ W)\nloss = mean((h - y)**2)",
            name="model",
            inputs={"x": {"shape": [3, 2]}, "W": {"shape": [2, 1]}, "y": {"shape": [3, 1]}},
        ),
        "cube": _example("x³, whatever x is", graph=CUBE),
    },
    InspectRequest: {
        "square": _example(
            "Shapes and costs of Σ x·x",
            expression="sum(x @ x)",
            inputs={"x": {"dtype": "float64", "shape": [4, 4]}},
        )
    },
}
