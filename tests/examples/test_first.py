"""The first request in three languages, each where its tool is installed; and what holds for every example."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
TOOLS = {
    "first.sh": ["bash", "-c", "curl --version"],
    "first.mjs": ["node", "--eval", "fetch"],
    "first.R": ["Rscript", "-e", "stopifnot(getRversion() >= '4.1'); library(httr2)"],
}
"""A command for each example that succeeds where it can run; its first word runs the example."""


@pytest.fixture(params=TOOLS, scope="module")
def command(request):
    tool = TOOLS[request.param]
    if shutil.which(tool[0]) is None or subprocess.run(tool, capture_output=True, check=False).returncode:
        pytest.skip(f"{request.param} needs {' '.join(tool)!r} to succeed")
    return [tool[0], f"examples/{request.param}"]


def test_every_language_prints_the_same_line(run, command):
    done = run(*command)
    assert (done.stdout, done.returncode) == ("x.grad = [3,12,27]\n", 0), done.stderr


def test_the_address_may_stand_in_the_environment(run, command, server):
    assert run(*command, url=None, GRADWIRE_URL=server).stdout == "x.grad = [3,12,27]\n"


def test_an_error_ends_it_with_what_the_service_says(run, command, server):
    done = run(*command, url=f"{server}/nowhere")
    assert done.returncode != 0
    assert done.stdout == ""
    assert "POST /nowhere/grad" in done.stderr


@pytest.mark.parametrize("name", ["tutorial.py", "iris.py", "black_scholes.py"])
def test_python_examples_take_their_address_from_the_environment_too(run, server, name):
    done = run(sys.executable, f"examples/{name}", url=None, GRADWIRE_URL=server)
    assert done.returncode == 0, done.stderr


def test_the_readme_lists_every_example():
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    names = {path.name for path in EXAMPLES.glob("*.*")} - {"README.md"}
    assert [name for name in sorted(names) if f"[{name}]({name})" not in readme] == []
