"""The calls: POST /grad and its kin, and GET /grad for an address bar."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from app.http.documenting import documented
from app.http.query import posted_from_query
from app.http.reading import read
from app.http.writing import written
from app.wire import models

router = APIRouter(prefix="/grad", tags=["Gradients"])


@router.post("", **documented("Gradients", models.GradAnswer, models.GradRequest))
async def grad(request: Request) -> Response:
    """Values, and the gradient by each wrt: Σ over outputs of the vector-Jacobian product, by one reverse sweep.

    As `y.backward(v)`: a non-scalar output needs its `grad_outputs`. One more leading axis on these is a stack of many.
    """
    return await written(await read(request, models.GradRequest))


@router.post("/value", **documented("Values only", models.ValueAnswer, models.ValueRequest))
async def value(request: Request) -> Response:
    """The outputs of the graph, with nothing tracked, as inside `torch.no_grad()`."""
    return await written(await read(request, models.ValueRequest))


@router.post("/jvp", **documented("Jacobian-vector product", models.JvpAnswer, models.JvpRequest))
async def jvp(request: Request) -> Response:
    """The derivative of every output along the `tangents`, by forward mode. Inputs without a tangent stand still."""
    return await written(await read(request, models.JvpRequest))


@router.post("/jacobian", **documented("Jacobian", models.JacobianAnswer, models.JacobianRequest))
async def jacobian(request: Request) -> Response:
    """Every output by every wrt, in shape output + wrt, or as nonzeros by `sparse`.

    What would not fit in memory at once is computed in chunks.
    """
    return await written(await read(request, models.JacobianRequest))


@router.post("/hessian", **documented("Hessian", models.HessianAnswer, models.HessianRequest))
async def hessian(request: Request) -> Response:
    """The second derivatives of a scalar output, in blocks of shape wrt + wrt or as nonzeros; and its gradient."""
    return await written(await read(request, models.HessianRequest))


@router.post("/hvp", **documented("Hessian-vector product", models.HvpAnswer, models.HvpRequest))
async def hvp(request: Request) -> Response:
    """The Hessian of a scalar output times `vectors`, by forward over reverse: the Hessian itself is never formed."""
    return await written(await read(request, models.HvpRequest))


@router.post("/laplacian", **documented("Laplacian", models.LaplacianAnswer, models.LaplacianRequest))
async def laplacian(request: Request) -> Response:
    """The diagonal of the Hessian by each wrt, and its sum, without the Hessian.

    Of an output with axes they come for each of its elements. Where the Hessian is sparse it takes a few products with
    vectors, else Taylor mode of order 2 along every axis.
    """
    return await written(await read(request, models.LaplacianRequest))


@router.post("/nth", **documented("Derivatives of order n", models.NthAnswer, models.NthRequest))
async def nth(request: Request) -> Response:
    """All orders up to `order`, each wrt on its own, or a mixed derivative along a `path`.

    Order k is the gradient of the sum of order k − 1; for an elementwise function that is the k-th derivative, element
    by element. The work grows polynomially with the order.
    """
    return await written(await read(request, models.NthRequest))


@router.post("/tensors", **documented("Derivative tensors", models.TensorsAnswer, models.TensorsRequest))
async def tensors(request: Request) -> Response:
    """Whole tensors of derivatives, of every order up to `order` by each wrt, or along a `path` of wrts.

    Of order k the shape is that of the output, then k times that of the wrt: as `jacfwd(jacfwd(hessian(f)))`.
    """
    return await written(await read(request, models.TensorsRequest))


@router.post("/taylor", **documented("Taylor coefficients", models.TaylorAnswer, models.TaylorRequest))
async def taylor(request: Request) -> Response:
    """c_0 to c_n of f(x + t·v) = Σ c_k t^k along a direction v; k!·c_k is the k-th directional derivative."""
    return await written(await read(request, models.TaylorRequest))


@router.post("/check", **documented("Check a derivative", models.CheckAnswer, models.CheckRequest))
async def check(request: Request) -> Response:
    """Analytic derivatives of the graph at these inputs, held against differences of its values."""
    return await written(await read(request, models.CheckRequest))


INPUTS = {
    "name": "inputs",
    "in": "query",
    "description": "Every other parameter is an input, a JSON number or list.",
    "style": "form",
    "explode": True,
    "schema": {"type": "object", "additionalProperties": True},
    "example": {"x": 1.5, "y": 2},
}


@router.get("", **documented("Derivatives, from a URL", models.NthAnswer), openapi_extra={"parameters": [INPUTS]})
async def from_url(
    request: Request,
    expr: Annotated[
        str,
        Query(
            description="The expression. A + must be written %2B.", openapi_examples={"product": {"value": "sin(x)*y"}}
        ),
    ],
    wrt: Annotated[str | None, Query(description="Names, separated by commas.")] = None,
    order: Annotated[str | None, Query(description="The highest order; 1 when absent.")] = None,
    outputs: Annotated[str | None, Query(description="Names, separated by commas.")] = None,
) -> Response:
    """Every other parameter is an input of the expression, a JSON number or list: `?expr=sin(x)*y&x=1.5&y=2`.

    The answer is that of POST /grad/nth; a non-scalar output is taken with ones.
    """
    return await written(posted_from_query(request))
