"""The autograd tutorial in six cells: each prints its idea, what it sends, and what comes back.

python examples/tutorial.py [URL]
"""

import json
import os
import sys

import httpx


def post(api, path, **request):
    """Send a request, show it, and return the answer."""
    print(f"  POST {path} {json.dumps(request)}")
    return api.post(path, json=request).json()


def show(name, value):
    print(f"  {name:<16}{value}")


def square(api):
    """x.grad: x requires grad, y = x² remembers how it was made, and y.backward() leaves 2x in x.grad."""
    x = {"data": 3.0, "requires_grad": True}
    answer = post(api, "/grad", expression="y = x**2", inputs={"x": x}, include=["nodes"])
    y = answer["graph"]["nodes"][-1]
    show("y", answer["values"]["y"]["data"])
    show("y.requires_grad", y["requires_grad"])
    show("y.grad_fn", y["grad_fn"])
    show("x.grad", answer["gradients"]["x"]["data"])


def vector(api):
    """A gradient vector: y = x³ is no scalar, so y.backward(v) needs a v; without it the service says so."""
    refused = post(api, "/grad", expression="y = x**3", inputs={"x": [1, 2, 3]})
    show("refused", refused["code"])
    show("because", refused["detail"])
    answer = post(api, "/grad", expression="y = x**3", inputs={"x": [1, 2, 3]}, grad_outputs={"y": [1, 1, 1]})
    show("x.grad", answer["gradients"]["x"]["data"])


def no_grad(api):
    """no_grad: /grad/value tracks nothing; in a graph, a = no_grad(x²) is no function of x, and a·x has the slope a."""
    value = post(api, "/grad/value", expression="y = x * 2", inputs={"x": 5}, include=["nodes"])
    show("y.requires_grad", value["graph"]["nodes"][-1]["requires_grad"])
    answer = post(api, "/grad", expression="a = no_grad(x * x); y = a * x", inputs={"x": 3}, include=["nodes"])
    a = answer["graph"]["nodes"][1]
    show("a.requires_grad", a["requires_grad"])
    show("x.grad", answer["gradients"]["x"]["data"])


def detach(api):
    """detach: the same value, cut off from the graph: a constant as far as gradients go."""
    answer = post(api, "/grad", expression="y = detach(x) * x", inputs={"x": 5})
    show("y", answer["values"]["y"]["data"])
    show("x.grad", answer["gradients"]["x"]["data"])


def accumulate(api):
    """Accumulation: hand in the gradient so far, and this one is added; leave it out to start from zero."""
    request = {"expression": "y = x**2", "inputs": {"x": 3}}
    first = post(api, "/grad", **request)["gradients"]
    show("x.grad", first["x"]["data"])
    second = post(api, "/grad", **request, accumulate=first)["gradients"]
    show("x.grad", second["x"]["data"])
    zeroed = post(api, "/grad", **request)["gradients"]
    show("x.grad", zeroed["x"]["data"])


def second_order(api):
    """Second order: x³ has the slope 3x², and that has the slope 6x."""
    answer = post(api, "/grad/nth", expression="y = x**3", inputs={"x": 2}, order=2)
    for derivative in answer["derivatives"]:
        show(f"order {derivative['order']}", derivative["value"]["data"])


if __name__ == "__main__":
    url = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("GRADWIRE_URL", "http://127.0.0.1:8000")
    with httpx.Client(base_url=url) as api:
        for number, cell in enumerate((square, vector, no_grad, detach, accumulate, second_order), start=1):
            print(f"{number}. {cell.__doc__}")
            cell(api)
            print()
