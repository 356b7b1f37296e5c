#!/usr/bin/env bash
# The gradient of x³ on a vector, with curl: bash examples/first.sh [URL]
set -euo pipefail
url=${1:-${GRADWIRE_URL:-http://127.0.0.1:8000}}

answer=$(curl -sS --fail-with-body "$url/grad" -H 'Content-Type: application/json' -d '{
  "expression": "y = x**3",
  "inputs": {"x": [1, 2, 3]},
  "grad_outputs": {"y": [1, 1, 1]}
}') || { echo "$answer" >&2; exit 1; }

# Where jq is installed, this is: jq .gradients.x.data <<< "$answer"
sed -E 's/.*"gradients":\{"x":\{[^}]*"data":([^}]*)\}.*/x.grad = \1/; s/\.0//g' <<< "$answer"
