"""The tutorial prints what PyTorch would."""

import sys

SHOWN = """\
y               9.0
y.requires_grad True
y.grad_fn       PowBackward0
x.grad          6.0
refused         grad_outputs_required
x.grad          [3.0, 12.0, 27.0]
y.requires_grad False
a.requires_grad False
x.grad          9.0
y               25.0
x.grad          5.0
x.grad          6.0
x.grad          12.0
x.grad          6.0
order 1         12.0
order 2         12.0
"""
BESIDE = ("POST", "because")
"""Lines that are not compared: the requests, and the wording of an error."""


def test_every_cell_shows_the_values_of_the_tutorial(run):
    done = run(sys.executable, "examples/tutorial.py")
    assert done.returncode == 0, done.stderr
    shown = [line.strip() for line in done.stdout.splitlines() if line.startswith("  ")]
    assert [line for line in shown if not line.startswith(BESIDE)] == SHOWN.splitlines()


def test_a_refusal_names_the_output_and_its_shape(run):
    shown = run(sys.executable, "examples/tutorial.py").stdout
    assert "output y has shape [3]" in shown
