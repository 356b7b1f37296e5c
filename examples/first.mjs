// The gradient of x³ on a vector, with fetch: node examples/first.mjs [URL]   (Node 18 or newer)

const url = process.argv[2] ?? process.env.GRADWIRE_URL ?? "http://127.0.0.1:8000";

const response = await fetch(`${url}/grad`, {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({
    expression: "y = x**3",
    inputs: { x: [1, 2, 3] },
    grad_outputs: { y: [1, 1, 1] },
  }),
});
const answer = await response.json();
if (!response.ok) throw new Error(answer.detail);

console.log(`x.grad = ${JSON.stringify(answer.gradients.x.data)}`);
