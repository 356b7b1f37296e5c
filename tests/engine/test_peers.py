"""Against PyTorch, where it is installed: values, gradients and second orders, and what autograd calls things.

PyTorch is a peer, no arbiter: where it is known to be less exact (trigamma), or its convention is not ours, the
catalogue's own tests and mpmath decide, and the case is left out here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from engine.core import ops
from engine.describe import describe
from engine.text import parse
from tests.support.asking import LIMITS, ask, compiled_question
from tests.support.numeric import assert_close

torch = pytest.importorskip("torch")
F = torch.nn.functional
SIGNED, POSITIVE, UNIT, INNER = (-2.0, 2.0), (0.5, 2.0), (0.1, 0.9), (-0.8, 0.8)


@dataclass(frozen=True)
class Pair:
    """The same function in both; `shapes` are those of x, y, z."""

    ours: str
    theirs: Callable[..., Any]
    at: tuple[float, float] = SIGNED
    shapes: tuple[tuple[int, ...], ...] = ((2, 3),)
    complex: bool = False

    def __str__(self) -> str:
        return self.ours.replace(" ", "") + " of complex" * self.complex

    @property
    def is_known(self) -> bool:
        return all(name in ops for name in re.findall(r"([a-z_0-9]+)\(", self.ours))

    @property
    def inputs(self) -> dict[str, Any]:
        rng = np.random.default_rng(len(self.ours))
        drawn = {name: rng.uniform(*self.at, shape) for name, shape in zip("xyz", self.shapes, strict=False)}
        if not self.complex:
            return drawn
        return {name: part + 1j * rng.uniform(*self.at, part.shape) for name, part in drawn.items()}

    @property
    def takes_complex(self) -> bool:
        statements = parse(self.ours, LIMITS).statements
        return all("c" in operand.kinds for each in statements for operand in each.op.operands)


TWO = ((2, 3), (2, 3))
SPREAD = ((2, 1), (1, 3))
MATRIX = ((3, 3),)
IMAGE = ((1, 2, 6, 6),)
REAL_ONLY = (
    "cholesky(x @ matrix_transpose(x))",
    "cholesky_inverse(tril(x))",
    "eigvalsh(x + matrix_transpose(x))",
    "silu(x)",
    "mean(x, axis=0, dtype='float64')",
    "matrix_norm(x, ord=2, dtype='float64')",
)
"""Pairs that mean something else of complex numbers, or that PyTorch does not differentiate there."""
SIGNS = torch.tensor([1, -1, 1])


def by_definition(*operands: Any, **attrs: Any) -> Any:
    """Attention, not fused: PyTorch's fused kernel has no second derivative."""
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        return F.scaled_dot_product_attention(*operands, **attrs)


def _cut_and_grown(mode: str) -> Callable[..., Any]:
    return lambda x: F.pad(x, (-2, 1), mode=mode)


PAIRS = [
    Pair("x + y", lambda x, y: x + y, shapes=SPREAD),
    Pair("x - y", lambda x, y: x - y, shapes=SPREAD),
    Pair("x * y", lambda x, y: x * y, shapes=SPREAD),
    Pair("x / y", lambda x, y: x / y, POSITIVE, SPREAD),
    Pair("x**y", torch.pow, POSITIVE, SPREAD),
    Pair("x**3", lambda x: x**3),
    Pair("x**-1.5", lambda x: x**-1.5, POSITIVE),
    Pair("x % y", torch.remainder, (1.1, 1.9), TWO),
    Pair("-x", torch.neg),
    Pair("abs(x)", torch.abs, POSITIVE),
    Pair("square(x)", torch.square),
    Pair("reciprocal(x)", torch.reciprocal, POSITIVE),
    Pair("sqrt(x)", torch.sqrt, POSITIVE),
    Pair("rsqrt(x)", torch.rsqrt, POSITIVE),
    Pair("exp(x)", torch.exp),
    Pair("exp2(x)", torch.exp2),
    Pair("expm1(x)", torch.expm1),
    Pair("log(x)", torch.log, POSITIVE),
    Pair("log1p(x)", torch.log1p, POSITIVE),
    Pair("log2(x)", torch.log2, POSITIVE),
    Pair("log10(x)", torch.log10, POSITIVE),
    Pair("logaddexp(x, y)", torch.logaddexp, shapes=SPREAD),
    Pair("logaddexp2(x, y)", torch.logaddexp2, shapes=SPREAD),
    *(Pair(f"{name}(x)", getattr(torch, name)) for name in ("sin", "cos", "sinh", "cosh", "tanh", "atan", "asinh")),
    *(Pair(f"{name}(x)", getattr(torch, name), INNER) for name in ("tan", "asin", "acos", "atanh", "sinc")),
    Pair("acosh(x)", torch.acosh, (1.5, 3.0)),
    Pair("atan2(x, y)", torch.atan2, POSITIVE, SPREAD),
    Pair("hypot(x, y)", torch.hypot, POSITIVE, SPREAD),
    Pair("erf(x)", torch.erf),
    Pair("erfc(x)", torch.erfc),
    Pair("erfcx(x)", torch.special.erfcx),
    Pair("erfinv(x)", torch.erfinv, INNER),
    Pair("ndtr(x)", torch.special.ndtr),
    Pair("log_ndtr(x)", torch.special.log_ndtr),
    Pair("ndtri(x)", torch.special.ndtri, UNIT),
    Pair("lgamma(x)", torch.lgamma, (0.5, 4.0)),
    Pair("xlogy(x, y)", torch.xlogy, POSITIVE, SPREAD),
    Pair("xlog1py(x, y)", torch.special.xlog1py, POSITIVE, SPREAD),
    Pair("entr(x)", torch.special.entr, POSITIVE),
    Pair("logit(x)", torch.logit, UNIT),
    Pair("softmax(x, axis=1, dtype='float64')", lambda x: torch.softmax(x, 1, dtype=torch.float64)),
    Pair("mean(x, axis=0, dtype='float64')", lambda x: torch.mean(x, 0, dtype=torch.float64)),
    Pair("x * round(x, decimals=1)", lambda x: x * torch.round(x, decimals=1)),
    Pair("x * frac(x)", lambda x: x * torch.frac(x)),
    Pair("diag_embed(x, offset=-1, axis1=0, axis2=2)", lambda x: torch.diag_embed(x, -1, 0, 2)),
    Pair("pad(x, [[-1, 2], [3, -2]], constant_values=2)", lambda x: F.pad(x, (3, -2, -1, 2), value=2.0)),
    *(
        Pair(f"pad(x, [[0, 0], [0, 0], [-2, 1]], mode='{ours}')", _cut_and_grown(theirs), shapes=((1, 2, 4),))
        for ours, theirs in (("reflect", "reflect"), ("edge", "replicate"), ("wrap", "circular"))
    ),
    Pair("pinv(x, atol=0.05)", lambda x: torch.linalg.pinv(x, atol=0.05), shapes=((3, 3),)),
    Pair("matrix_norm(x, ord=2, dtype='float64')", lambda x: torch.linalg.matrix_norm(x, 2), shapes=((3, 3),)),
    Pair("corrcoef(x)", torch.corrcoef, shapes=((2, 5),), complex=True),
    Pair("normalize(x)", F.normalize, complex=True),
    Pair("pairwise_distance(x, y)", F.pairwise_distance, shapes=TWO, complex=True),
    Pair("l1_loss(x, y)", F.l1_loss, shapes=TWO, complex=True),
    Pair("i0(x)", torch.special.i0),
    Pair("i0e(x)", torch.special.i0e, POSITIVE),
    Pair("i1(x)", torch.special.i1, POSITIVE),
    Pair("i1e(x)", torch.special.i1e, POSITIVE),
    Pair("gammainc(2.5, x)", lambda x: torch.special.gammainc(torch.full_like(x, 2.5), x), POSITIVE),
    Pair("gammaincc(2.5, x)", lambda x: torch.special.gammaincc(torch.full_like(x, 2.5), x), POSITIVE),
    Pair("zeta(2.5, x)", lambda x: torch.special.zeta(2.5, x), POSITIVE),
    Pair("multigammaln(x, p=2)", lambda x: torch.special.multigammaln(x, 2), (1.5, 4.0)),
    Pair("expit(x)", torch.special.expit),
    Pair("fmax(x, y)", torch.fmax, shapes=TWO),
    Pair("fmin(x, y)", torch.fmin, shapes=TWO),
    Pair("fmod(x, y)", torch.fmod, shapes=TWO),
    Pair("lerp(x, y, z)", torch.lerp, shapes=(*TWO, (3,))),
    Pair("float_power(x, y)", torch.float_power, POSITIVE, SPREAD),
    Pair("deg2rad(x)", torch.deg2rad),
    Pair("rad2deg(x)", torch.rad2deg),
    Pair("maximum(x, y)", torch.maximum, shapes=TWO),
    Pair("minimum(x, y)", torch.minimum, shapes=TWO),
    Pair("clip(x, -0.5, 0.5)", lambda x: torch.clamp(x, -0.5, 0.5)),
    Pair("where(x > y, x * y, x)", lambda x, y: torch.where(x > y, x * y, x), shapes=TWO),
    Pair("lerp(x, y, 0.3)", lambda x, y: torch.lerp(x, y, 0.3), shapes=TWO),
    Pair("sigmoid(x)", torch.sigmoid),
    Pair("log_sigmoid(x)", F.logsigmoid),
    Pair("softplus(x, beta=2)", lambda x: F.softplus(x, beta=2)),
    Pair("softsign(x)", F.softsign, POSITIVE),
    *(Pair(f"{name}(x)", getattr(F, name)) for name in ("relu", "relu6", "silu", "mish", "selu", "leaky_relu")),
    Pair("elu(x, alpha=0.5)", lambda x: F.elu(x, alpha=0.5)),
    Pair("gelu(x)", F.gelu),
    Pair("gelu(x, approximate='tanh')", lambda x: F.gelu(x, approximate="tanh")),
    Pair("hard_swish(x)", F.hardswish),
    Pair("softmax(x, axis=1)", lambda x: torch.softmax(x, 1)),
    Pair("log_softmax(x, axis=0)", lambda x: torch.log_softmax(x, 0)),
    Pair("mse_loss(x, y)", F.mse_loss, shapes=TWO),
    Pair("huber_loss(x, y, delta=0.7)", lambda x, y: F.huber_loss(x, y, delta=0.7), shapes=TWO),
    Pair("layer_norm(x, [3])", lambda x: F.layer_norm(x, [3])),
    Pair("sum(x, axis=0)", lambda x: x.sum(0)),
    Pair("mean(x, axis=1, keepdims=true)", lambda x: x.mean(1, keepdim=True)),
    Pair("prod(x, axis=1)", lambda x: x.prod(1)),
    Pair("max(x, axis=1)", lambda x: x.amax(1)),
    Pair("min(x)", torch.amin),
    Pair("var(x, axis=1, correction=1)", lambda x: x.var(1)),
    Pair("std(x, axis=1, correction=0)", lambda x: x.std(1, correction=0)),
    Pair("logsumexp(x, axis=1)", lambda x: torch.logsumexp(x, 1)),
    Pair("vector_norm(x, axis=1, ord=3)", lambda x: torch.linalg.vector_norm(x, 3, 1)),
    Pair("cumulative_sum(x, axis=1)", lambda x: x.cumsum(1)),
    Pair("cumulative_prod(x, axis=1)", lambda x: x.cumprod(1)),
    Pair("diff(x, axis=1)", lambda x: torch.diff(x, dim=1)),
    Pair("median(x, axis=1)", lambda x: x.median(1).values),
    Pair("median(x, axis=0)", lambda x: x.median(0).values),
    Pair("nanmedian(x)", torch.nanmedian),
    Pair("quantile(x, 0.3, axis=1)", lambda x: torch.quantile(x, 0.3, 1)),
    Pair("quantile(x, y, axis=1)", lambda x, y: torch.quantile(x, y, 1), UNIT, ((2, 3), (4,))),
    Pair("nanquantile(x, 0.3)", lambda x: torch.nanquantile(x, 0.3)),
    Pair("aminmax(x, axis=1).max", lambda x: torch.aminmax(x, dim=1).max),
    Pair("std_mean(x, axis=1, correction=1).std", lambda x: torch.std_mean(x, 1)[0]),
    Pair("cov(x)", torch.cov),
    Pair(
        "cov(x, [1, 2, 1], y)",
        lambda x, y: torch.cov(x, fweights=torch.tensor([1, 2, 1]), aweights=y),
        POSITIVE,
        ((2, 3), (3,)),
    ),
    Pair("corrcoef(x)", torch.corrcoef),
    *(
        Pair(f"matrix_norm(x, ord={ord!r})", lambda x, ord=ord: torch.linalg.matrix_norm(x, ord))
        for ord in ("fro", "nuc", 1, -1, 2, -2)
    ),
    *(
        Pair(f"vector_norm(x, ord={ord!r})", lambda x, ord=ord: torch.linalg.vector_norm(x, ord))
        for ord in (0.5, 1, 2.5, -1, -3)
    ),
    Pair("cumulative_logsumexp(x, axis=1)", lambda x: torch.logcumsumexp(x, 1)),
    Pair("cummax(x, axis=1).values", lambda x: torch.cummax(x, 1).values),
    Pair("cummin(x, axis=0).values", lambda x: torch.cummin(x, 0).values),
    Pair("diff(x, n=2, prepend=y)", lambda x, y: torch.diff(x, n=2, prepend=y), shapes=TWO),
    Pair("trapezoid(x, y)", torch.trapezoid, shapes=TWO),
    Pair("cumulative_trapezoid(x, dx=0.5)", lambda x: torch.cumulative_trapezoid(x, dx=0.5)),
    Pair("sort(x, axis=1, descending=true)", lambda x: x.sort(1, descending=True).values),
    Pair("top_k(x, 2).values", lambda x: x.topk(2).values),
    Pair("top_k(x, 1, axis=0, largest=false).values", lambda x: x.topk(1, 0, largest=False).values),
    Pair("kthvalue(x, 2).values", lambda x: x.kthvalue(2).values),
    Pair("gather(x, [[0, 2, 2], [1, 0, 1]], axis=1)", lambda x: x.gather(1, torch.tensor([[0, 2, 2], [1, 0, 1]]))),
    Pair(
        "scatter(x, [[2], [0]], y, axis=1)", lambda x, y: x.scatter(1, torch.tensor([[2], [0]]), y[:, :1]), shapes=TWO
    ),
    Pair(
        "scatter_add(x, [[2, 2], [0, 1]], y, axis=1)",
        lambda x, y: x.scatter_add(1, torch.tensor([[2, 2], [0, 1]]), y[:, :2]),
        shapes=TWO,
    ),
    Pair(
        "index_add(x, [1, 1], y, axis=0, alpha=2)",
        lambda x, y: x.index_add(0, torch.tensor([1, 1]), y, alpha=2),
        shapes=TWO,
    ),
    Pair(
        "index_update(x, [2, 0], y, axis=1)",
        lambda x, y: x.index_copy(1, torch.tensor([2, 0]), y),
        shapes=((2, 3), (2, 2)),
    ),
    Pair("cross(x, y)", torch.linalg.cross, shapes=TWO),
    Pair("rot90(x)", torch.rot90),
    Pair("vander(x, N=4, increasing=true)", lambda x: torch.linalg.vander(x, N=4)),
    Pair("trace(x)", torch.trace, shapes=MATRIX),
    Pair("reshape(x, [3, 2])", lambda x: x.reshape(3, 2)),
    Pair("permute_dims(x, axes=[1, 0])", lambda x: x.permute(1, 0)),
    Pair("x[1:, ::2]", lambda x: x[1:, ::2]),
    Pair("flip(x, axis=1)", lambda x: x.flip(1)),
    Pair("roll(x, 1, axis=1)", lambda x: x.roll(1, 1)),
    Pair("repeat(x, 2, axis=1)", lambda x: x.repeat_interleave(2, 1)),
    Pair("tile(x, [2, 2])", lambda x: x.tile(2, 2)),
    Pair("concat(x, y, axis=1)", lambda x, y: torch.cat([x, y], 1), shapes=TWO),
    Pair("stack(x, y, axis=1)", lambda x, y: torch.stack([x, y], 1), shapes=TWO),
    Pair("pad(x, [[0, 0], [1, 2]])", lambda x: F.pad(x, (1, 2))),
    Pair("tril(x)", torch.tril, shapes=MATRIX),
    Pair("triu(x, k=1)", lambda x: x.triu(1), shapes=MATRIX),
    Pair("diagonal(x)", torch.diagonal, shapes=MATRIX),
    Pair("take(x, [2, 0, 0], axis=1)", lambda x: x.index_select(1, torch.tensor([2, 0, 0]))),
    Pair("x @ y", torch.matmul, shapes=((2, 3), (3, 4))),
    Pair("matmul(x, y)", torch.matmul, shapes=((5, 2, 3), (3,))),
    Pair("einsum('ij,jk,k->i', x, y, z)", lambda *a: torch.einsum("ij,jk,k->i", *a), shapes=((2, 3), (3, 4), (4,))),
    Pair("tensordot(x, y, axes=1)", lambda x, y: torch.tensordot(x, y, 1), shapes=((2, 3), (3, 4))),
    Pair("outer(x, y)", torch.outer, shapes=((2,), (3,))),
    Pair("kron(x, y)", torch.kron, shapes=((2, 2), (2, 3))),
    Pair("vecdot(x, y)", torch.linalg.vecdot, shapes=TWO),
    Pair("inv(x)", torch.linalg.inv, shapes=MATRIX),
    Pair("solve(x, y)", torch.linalg.solve, shapes=((3, 3), (3,))),
    Pair("det(x)", torch.linalg.det, shapes=MATRIX),
    Pair("slogdet(x).logabsdet", lambda x: torch.linalg.slogdet(x).logabsdet, shapes=MATRIX),
    Pair("cholesky(x @ matrix_transpose(x))", lambda x: torch.linalg.cholesky(x @ x.mT), shapes=MATRIX),
    Pair("eigvalsh(x + matrix_transpose(x))", lambda x: torch.linalg.eigvalsh(x + x.mT), shapes=MATRIX),
    Pair("svdvals(x)", torch.linalg.svdvals),
    Pair("pinv(x)", torch.linalg.pinv),
    Pair("matrix_power(x, 3)", lambda x: torch.linalg.matrix_power(x, 3), shapes=MATRIX),
    Pair("expm(x)", torch.linalg.matrix_exp, shapes=MATRIX),
    Pair("logdet(x @ matrix_transpose(x))", lambda x: torch.logdet(x @ x.mT), shapes=MATRIX),
    Pair("matrix_power(x, -2)", lambda x: torch.linalg.matrix_power(x, -2), shapes=MATRIX),
    Pair("multi_dot(x, y, z)", lambda *a: torch.linalg.multi_dot(a), shapes=((2, 3), (3, 4), (4,))),
    Pair(
        "solve_triangular(x, y, upper=true)",
        lambda x, y: torch.linalg.solve_triangular(x, y, upper=True),
        POSITIVE,
        ((2, 3, 3), (3, 2)),
    ),
    Pair(
        "solve_triangular(x, y, upper=false, left=false, unitriangular=true)",
        lambda x, y: torch.linalg.solve_triangular(x, y, upper=False, left=False, unitriangular=True),
        shapes=((3, 3), (2, 2, 3)),
    ),
    # PyTorch's gradient by the factor alone is that of a full one; only the triangle is read, so only that has one.
    Pair(
        "cholesky_solve(x, tril(y))", lambda x, y: torch.cholesky_solve(x, y.tril()), POSITIVE, shapes=((3, 2), (3, 3))
    ),
    Pair("cholesky_inverse(tril(x))", lambda x: torch.cholesky_inverse(x.tril()), POSITIVE, shapes=MATRIX),
    Pair("real(sum(exp(eigvals(x))))", lambda x: torch.linalg.eigvals(x).exp().sum().real, shapes=MATRIX),
    Pair("w, v = eig(x); real((v * sin(w)) @ inv(v))", lambda x: sin_by_eig(*torch.linalg.eig(x)).real, shapes=MATRIX),
    Pair("lu(x).L", lambda x: torch.linalg.lu(x)[1], shapes=((4, 3),)),
    Pair("lu(x).U", lambda x: torch.linalg.lu(x)[2], shapes=((3, 4),)),
    Pair("lstsq(x, y).solution", lambda x, y: torch.linalg.lstsq(x, y).solution, shapes=((4, 2), (4, 3))),
    Pair("condition_number(x)", torch.linalg.cond),
    Pair("tensorinv(x)", torch.linalg.tensorinv, shapes=((2, 3, 3, 2),)),
    Pair("tensorsolve(x, y)", torch.linalg.tensorsolve, shapes=((2, 3, 6), (2, 3))),
    Pair("conv2d(x, y, padding=1)", lambda x, y: F.conv2d(x, y, padding=1), shapes=(*IMAGE, (3, 2, 3, 3))),
    Pair(
        "conv2d(x, y, z, stride=2, padding=[2, 1], dilation=[1, 2], groups=2)",
        lambda *a: F.conv2d(*a, stride=2, padding=(2, 1), dilation=(1, 2), groups=2),
        shapes=((2, 4, 6, 7), (6, 2, 3, 2), (6,)),
    ),
    Pair("conv2d(x, y)", F.conv2d, shapes=((2, 4, 3, 3), (5, 4, 1, 1))),
    Pair("conv1d(x, y, padding='same')", lambda x, y: F.conv1d(x, y, padding="same"), shapes=((3, 7), (2, 3, 4))),
    Pair("conv3d(x, y, stride=2)", lambda x, y: F.conv3d(x, y, stride=2), shapes=((1, 2, 4, 5, 4), (3, 2, 2, 3, 2))),
    Pair("conv_transpose1d(x, y)", F.conv_transpose1d, shapes=((2, 3, 4), (3, 2, 3))),
    Pair(
        "conv_transpose2d(x, y, z, stride=[2, 3], padding=[1, 2], output_padding=[1, 2], groups=2, dilation=[2, 1])",
        lambda *a: F.conv_transpose2d(*a, (2, 3), (1, 2), (1, 2), 2, (2, 1)),
        shapes=((2, 4, 3, 4), (4, 2, 3, 4), (4,)),
    ),
    Pair(
        "conv_transpose2d(x, y, padding=[1, 0], output_padding=2, dilation=3)",
        lambda x, y: F.conv_transpose2d(x, y, padding=(1, 0), output_padding=2, dilation=3),
        shapes=((1, 2, 3, 3), (2, 3, 2, 2)),
    ),
    Pair("unfold(x, [2, 3], padding=1, stride=2)", lambda x: F.unfold(x, (2, 3), padding=1, stride=2), shapes=IMAGE),
    Pair("fold(x, [4, 3], 2)", lambda x: F.fold(x, (4, 3), 2), shapes=((2, 8, 6),)),
    Pair("pixel_shuffle(x, 2)", lambda x: F.pixel_shuffle(x, 2), shapes=((2, 8, 2, 3),)),
    Pair("pixel_unshuffle(x, 2)", lambda x: F.pixel_unshuffle(x, 2), shapes=IMAGE),
    Pair("channel_shuffle(x, 2)", lambda x: F.channel_shuffle(x, 2), shapes=((1, 4, 2, 2),)),
    Pair("avg_pool2d(x, kernel_size=2)", lambda x: F.avg_pool2d(x, 2), shapes=IMAGE),
    Pair("avg_pool1d(x, 3, 2, padding=1)", lambda x: F.avg_pool1d(x, 3, 2, 1), shapes=((2, 3, 7),)),
    *(
        Pair(
            f"avg_pool2d(x, 3, 2, 1, true, count_include_pad={str(counted).lower()})",
            lambda x, counted=counted: F.avg_pool2d(x, 3, 2, 1, True, counted),
            shapes=((2, 6, 8),),
        )
        for counted in (True, False)
    ),
    Pair(
        "avg_pool3d(x, 2, divisor_override=3)", lambda x: F.avg_pool3d(x, 2, divisor_override=3), shapes=((1, 2, 2, 3),)
    ),
    Pair("max_pool2d(x, kernel_size=2)", lambda x: F.max_pool2d(x, 2), shapes=IMAGE),
    Pair("max_pool1d(x, 3, 2, 1, 2, true)", lambda x: F.max_pool1d(x, 3, 2, 1, 2, True), shapes=((2, 3, 9),)),
    Pair("max_pool3d(x, 2, 1)", lambda x: F.max_pool3d(x, 2, 1), shapes=((1, 3, 3, 2),)),
    Pair("lp_pool2d(x, 3, 2)", lambda x: F.lp_pool2d(x, 3.0, 2), POSITIVE, shapes=IMAGE),
    Pair("adaptive_avg_pool2d(x, [4, 3])", lambda x: F.adaptive_avg_pool2d(x, (4, 3)), shapes=IMAGE),
    Pair("adaptive_max_pool2d(x, [4, null])", lambda x: F.adaptive_max_pool2d(x, (4, None)), shapes=IMAGE),
    *(
        Pair(f"{name}(x)", getattr(F, name))
        for name in ("hardtanh", "hardshrink", "softshrink", "tanhshrink", "celu", "rrelu")
    ),
    Pair("threshold(x, 0.5, -1)", lambda x: F.threshold(x, 0.5, -1.0)),
    Pair("softmin(x, axis=0)", lambda x: F.softmin(x, 0)),
    Pair("glu(x, axis=0)", lambda x: F.glu(x, 0)),
    Pair("prelu(x, y)", F.prelu, shapes=((2, 3, 2), (3,))),
    Pair("layer_norm(x, [2, 3], y, z)", lambda x, y, z: F.layer_norm(x, [2, 3], y, z), shapes=((2, 2, 3), *TWO)),
    Pair("rms_norm(x, [3], y)", lambda x, y: F.rms_norm(x, [3], y), shapes=((2, 3), (3,))),
    Pair("group_norm(x, 2, y, z)", lambda x, y, z: F.group_norm(x, 2, y, z), shapes=((2, 4, 3), (4,), (4,))),
    Pair("instance_norm(x, weight=y)", lambda x, y: F.instance_norm(x, weight=y), shapes=((2, 3, 4), (3,))),
    Pair(
        "batch_norm(x, weight=y, bias=z, training=true)",
        lambda x, y, z: F.batch_norm(x, None, None, y, z, True),
        shapes=((4, 3, 2), (3,), (3,)),
    ),
    Pair(
        "batch_norm(x, detach(y), detach(z))",
        lambda x, y, z: F.batch_norm(x, y.detach(), z.detach()),
        POSITIVE,
        ((4, 3), (3,), (3,)),
    ),
    Pair("local_response_norm(x, 3, 0.5)", lambda x: F.local_response_norm(x, 3, 0.5), shapes=((2, 4, 3),)),
    Pair("normalize(x, p=3)", lambda x: F.normalize(x, 3.0)),
    Pair("cosine_similarity(x, y, axis=0)", lambda x, y: F.cosine_similarity(x, y, 0), shapes=TWO),
    Pair("pairwise_distance(x, y, p=3)", lambda x, y: F.pairwise_distance(x, y, 3.0), shapes=TWO),
    Pair("cdist(x, y)", lambda x, y: (x[:, None] - y).norm(dim=-1), shapes=((2, 3), (4, 3))),
    Pair("linear(x, y, z)", F.linear, shapes=((2, 3), (4, 3), (4,))),
    Pair("bilinear(x, y, z)", F.bilinear, shapes=((2, 3), (2, 4), (5, 3, 4))),
    Pair("embedding([[0, 2], [2, 1]], x)", lambda x: F.embedding(torch.tensor([[0, 2], [2, 1]]), x), shapes=((3, 2),)),
    Pair(
        "embedding([0, 2, 2, 1], x, padding_idx=-1, scale_grad_by_freq=true)",
        lambda x: F.embedding(torch.tensor([0, 2, 2, 1]), x * 1, padding_idx=-1, scale_grad_by_freq=True),
        shapes=((3, 2),),
    ),
    Pair("scaled_dot_product_attention(x, y, z)", by_definition, shapes=((2, 2, 3), (2, 4, 3), (2, 4, 2))),
    Pair(
        "attention(x, y, z, is_causal=true, scale=0.3)",
        lambda *a: by_definition(*a, is_causal=True, scale=0.3),
        shapes=((3, 4), (3, 4), (3, 2)),
    ),
    Pair(
        "attention(x, y, z, [[True, False], [False, False]])",
        lambda *a: by_definition(*a, attn_mask=torch.tensor([[True, False], [False, False]])),
        shapes=((2, 3), (2, 3), (2, 2)),
    ),
    *(
        Pair(
            f"{name}(x, y, reduction='{reduction}')",
            lambda x, y, name=name, r=reduction: getattr(F, name)(x, y, reduction=r),
            at,
            TWO,
        )
        for name, at in (
            *((name, SIGNED) for name in ("l1_loss", "smooth_l1_loss", "poisson_nll_loss")),
            *((name, UNIT) for name in ("binary_cross_entropy", "binary_cross_entropy_with_logits", "kl_div")),
            *((name, UNIT) for name in ("multilabel_soft_margin_loss", "mse_loss", "huber_loss")),
        )
        for reduction in ("none", "sum", "mean")
    ),
    Pair(
        "kl_div(x, y, 'batchmean', true)",
        lambda x, y: F.kl_div(x, y, reduction="batchmean", log_target=True),
        shapes=TWO,
    ),
    Pair("mse_loss(x, y, z)", lambda x, y, z: F.mse_loss(x, y, weight=z), POSITIVE, (*TWO, (2, 3))),
    Pair(
        "binary_cross_entropy_with_logits(x, y, pos_weight=[1.0, 2.0, 3.0])",
        lambda x, y: F.binary_cross_entropy_with_logits(x, y, pos_weight=torch.tensor([1.0, 2.0, 3.0]).double()),
        UNIT,
        TWO,
    ),
    Pair("poisson_nll_loss(x, y, false, true)", lambda x, y: F.poisson_nll_loss(x, y, False, True), POSITIVE, TWO),
    Pair(
        "gaussian_nll_loss(x, y, z, true)", lambda x, y, z: F.gaussian_nll_loss(x, y, z, True), POSITIVE, (*TWO, (2, 1))
    ),
    Pair("hinge_embedding_loss(x, [1, -1, 1])", lambda x: F.hinge_embedding_loss(x, SIGNS)),
    Pair(
        "cosine_embedding_loss(x, y, [1, -1], margin=-0.5)",
        lambda x, y: F.cosine_embedding_loss(x, y, SIGNS[:2], -0.5),
        shapes=TWO,
    ),
    Pair(
        "margin_ranking_loss(x, y, z, margin=0.5)",
        lambda x, y, z: F.margin_ranking_loss(x, y, z, 0.5),
        shapes=(*TWO, (2, 3)),
    ),
    Pair(
        "triplet_margin_loss(x, y, z, swap=true)",
        lambda *a: F.triplet_margin_loss(*a, swap=True),
        shapes=(*TWO, (2, 3)),
    ),
    Pair("cross_entropy(x, [2, 0])", lambda x: F.cross_entropy(x, torch.tensor([2, 0]))),
    *(
        Pair(
            f"cross_entropy(x, [[2, 0], [-100, 1]], detach(y), reduction='{reduction}', label_smoothing=0.3)",
            lambda x, y, r=reduction: F.cross_entropy(
                x, torch.tensor([[2, 0], [-100, 1]]), y.detach(), reduction=r, label_smoothing=0.3
            ),
            POSITIVE,
            ((2, 3, 2), (3,)),
        )
        for reduction in ("none", "sum", "mean")
    ),
    Pair(
        "cross_entropy(x, y, label_smoothing=0.3)",
        lambda x, y: F.cross_entropy(x, y, label_smoothing=0.3),
        UNIT,
        TWO,
    ),
    Pair("nll_loss(x, [2, 0])", lambda x: F.nll_loss(x, torch.tensor([2, 0]))),
    Pair("nll_loss(x, [-100, 0], reduction='sum')", lambda x: F.nll_loss(x, torch.tensor([-100, 0]), reduction="sum")),
]


def of_fourier(name: str, ours: str = "", shape: tuple[int, ...] = (4, 6), **theirs: Any) -> Pair:
    """One of numpy.fft's functions, in all three."""
    return Pair(f"{name}(x{ours})", lambda x: getattr(torch.fft, name)(x, **theirs), shapes=(shape,))


LINES = ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft")
FOURIER = [
    *(of_fourier(name) for name in LINES),
    *(of_fourier(name, ", n=5, axis=0, norm='ortho'", n=5, dim=0, norm="ortho") for name in LINES),
    *(of_fourier(name, ", n=9, norm='forward'", n=9, norm="forward") for name in LINES),
    *(of_fourier(f"{name}2", ", norm='forward'", (2, 4, 3), norm="forward") for name in LINES),
    *(of_fourier(f"{name}n", ", norm='ortho'", (2, 4, 3), norm="ortho") for name in LINES),
    *(of_fourier(f"{name}n", ", [3, 5], axes=[2, 0]", (2, 4, 3), s=(3, 5), dim=(2, 0)) for name in LINES),
    of_fourier("fftshift"),
    of_fourier("ifftshift", ", axes=1", (4, 5), dim=1),
]


def exp_by_svd(u: Any, s: Any, vh: Any) -> Any:
    return u @ (s.exp()[:, None] * vh)


def sin_by_eigh(values: Any, vectors: Any) -> Any:
    return (vectors * values.sin()) @ vectors.mH


def sin_by_eig(values: Any, vectors: Any) -> Any:
    return (vectors * values.sin()) @ torch.linalg.inv(vectors)


COMPLEX_PAIRS = [
    Pair("sum(exp(eigvals(x)))", lambda x: torch.linalg.eigvals(x).exp().sum(), shapes=MATRIX),
    Pair("w, v = eig(x); (v * sin(w)) @ inv(v)", lambda x: sin_by_eig(*torch.linalg.eig(x)), shapes=MATRIX),
    Pair("logdet(x)", torch.logdet, shapes=MATRIX),
    Pair("conj(x) * x", lambda x: x.conj() * x),
    Pair("real(x)", torch.real),
    Pair("imag(x)", torch.imag),
    Pair("angle(x)", torch.angle),
    Pair("sign(x)", torch.sgn),
    Pair("abs(x)", torch.abs),
    Pair("complex(real(x), imag(y))", lambda x, y: torch.complex(x.real, y.imag), shapes=TWO),
    Pair("polar(abs(x), angle(y))", lambda x, y: torch.polar(x.abs(), y.angle()), shapes=TWO),
    Pair("adjoint(x)", torch.adjoint),
    Pair("view_as_real(x)", torch.view_as_real),
    Pair("view_as_complex(view_as_real(x))", lambda x: torch.view_as_complex(torch.view_as_real(x).clone())),
    Pair("x**y", torch.pow, shapes=SPREAD),
    Pair("silu(x)", lambda x: x * torch.sigmoid(x)),
    Pair("acosh(x)", torch.acosh),
    *(Pair(f"vector_norm(x, ord={p})", lambda x, p=p: torch.linalg.vector_norm(x, p)) for p in (1, 2, 4, -2)),
    Pair("vector_norm(x, ord=Infinity)", lambda x: torch.linalg.vector_norm(x, float("inf"))),
    Pair("slogdet(x).sign", lambda x: torch.linalg.slogdet(x).sign, shapes=MATRIX),
    Pair("cholesky(x @ adjoint(x))", lambda x: torch.linalg.cholesky(x @ x.mH), shapes=MATRIX),
    Pair("eigvalsh(x + adjoint(x))", lambda x: torch.linalg.eigvalsh(x + x.mH), shapes=MATRIX),
    Pair("qr(x).Q", lambda x: torch.linalg.qr(x).Q, shapes=MATRIX),
    Pair("qr(x).R", lambda x: torch.linalg.qr(x).R, shapes=MATRIX),
    Pair("qr(x).Q", lambda x: torch.linalg.qr(x).Q, shapes=((4, 2),)),
    Pair("qr(x).R", lambda x: torch.linalg.qr(x).R, shapes=((2, 4),)),
    Pair("abs(svd(x, full_matrices=false).U)", lambda x: torch.linalg.svd(x, False).U.abs(), shapes=((4, 3),)),
    Pair("abs(svd(x, full_matrices=false).Vh)", lambda x: torch.linalg.svd(x, False).Vh.abs(), shapes=((3, 4),)),
    Pair(
        "u, s, v = svd(x, full_matrices=false); y = u @ (expand_dims(exp(s), axis=-1) * v)",
        lambda x: exp_by_svd(*torch.linalg.svd(x, False)),
        shapes=MATRIX,
    ),
    Pair("abs(eigh(x).eigenvectors)", lambda x: torch.linalg.eigh((x + x.mH) / 2).eigenvectors.abs(), shapes=MATRIX),
    Pair(
        "w, v = eigh(x); y = (v * sin(w)) @ adjoint(v)",
        lambda x: sin_by_eigh(*torch.linalg.eigh((x + x.mH) / 2)),
        shapes=MATRIX,
    ),
]
KNOWN = [pair for pair in (*PAIRS, *FOURIER) if pair.is_known]
KNOWN += [replace(pair, complex=True) for pair in KNOWN if pair.takes_complex and pair.ours not in REAL_ONLY]
KNOWN += [replace(pair, complex=True) for pair in COMPLEX_PAIRS]
every_pair = pytest.mark.parametrize("pair", KNOWN, ids=str)


def statements(pair: Pair, last: str) -> str:
    """The text of a pair with the value of its last statement called y_, and one more statement."""
    *before, value = pair.ours.split("; ")
    return "; ".join([*before, f"y_ = {value.removeprefix('y = ')}", *([last] if last else [])])


def drawn_like(tensor: Any, rng: np.random.Generator) -> Any:
    shape = tuple(tensor.shape)
    values = rng.normal(size=shape)
    return values + 1j * rng.normal(size=shape) if tensor.is_complex() else values


def theirs(pair: Pair) -> tuple[Any, list[Any]]:
    leaves = [torch.tensor(x, requires_grad=True) for x in pair.inputs.values()]
    return pair.theirs(*leaves), leaves


def filled(grads: Any, leaves: list[Any]) -> list[Any]:
    return [torch.zeros_like(x) if g is None else g for g, x in zip(grads, leaves, strict=True)]


@every_pair
def test_values_agree(pair: Pair) -> None:
    found = ask("value", pair.ours, pair.inputs)["values"].popitem()[1]
    assert_close(found, theirs(pair)[0].detach().resolve_conj().numpy(), 1e-12, "value")


@every_pair
def test_gradients_agree(pair: Pair) -> None:
    out, leaves = theirs(pair)
    u = drawn_like(out, np.random.default_rng(0))
    expected = filled(torch.autograd.grad(out, leaves, torch.tensor(u), allow_unused=True), leaves)
    found = ask("grad", statements(pair, ""), pair.inputs, grad_outputs={"y_": u})["gradients"]
    for (name, gradient), other in zip(found.items(), expected, strict=True):
        assert_close(gradient, other.resolve_conj().numpy(), 1e-10, f"gradient by {name}")


@every_pair
def test_second_orders_agree(pair: Pair) -> None:
    """H v of Σ |y|²; of complex numbers as of pairs of real ones."""
    out, leaves = theirs(pair)
    rng = np.random.default_rng(1)
    vectors = {name: drawn_like(x, rng) for name, x in zip(pair.inputs, leaves, strict=True)}
    loss = (out * out.conj()).real.sum()
    first = filled(torch.autograd.grad(loss, leaves, create_graph=True, allow_unused=True), leaves)
    along = sum((g * torch.tensor(v).conj()).real.sum() for g, v in zip(first, vectors.values(), strict=True))
    expected = filled(torch.autograd.grad(along, leaves, allow_unused=True), leaves)
    text = statements(pair, "t_ = sum(real(y_ * conj(y_)))")
    found = ask("hvp", text, pair.inputs, vectors=vectors, outputs=["t_"])["hvp"]
    for (name, product), other in zip(found.items(), expected, strict=True):
        assert_close(product, other.resolve_conj().numpy(), 1e-8, f"H v by {name}")


def test_most_of_the_table_is_compared() -> None:
    assert len(KNOWN) > 80


VALUES_ONLY = [
    *(("j0", "bessel_j0"), ("j1", "bessel_j1"), ("y0", "bessel_y0"), ("y1", "bessel_y1")),
    *(("i0", "modified_bessel_i0"), ("i1", "modified_bessel_i1"), ("k0", "modified_bessel_k0")),
    *(("k1", "modified_bessel_k1"), ("k0e", "scaled_modified_bessel_k0"), ("k1e", "scaled_modified_bessel_k1")),
]
"""What PyTorch does not differentiate, by our name and by its own, which is an alias."""


@pytest.mark.parametrize(("ours", "theirs"), VALUES_ONLY)
def test_values_agree_under_both_names(ours: str, theirs: str) -> None:
    x = np.array([0.05, 0.7, 1.9, 40.0])  # at 6 PyTorch is off by 6e-8
    found = ask("value", f"{theirs}(x)", {"x": x})["values"]["out"]
    assert ops.find(ours) is ops.find(theirs)
    assert_close(found, getattr(torch.special, theirs)(torch.tensor(x)).numpy(), 1e-12, "value")


# What autograd calls things

SAME_NAME = [
    *("abs", "reciprocal", "sqrt", "rsqrt", "exp", "exp2", "expm1", "log", "log1p", "log2", "log10", "logaddexp"),
    *("sin", "cos", "sinh", "cosh", "tanh", "atan", "asinh", "tan", "asin", "acos", "atanh", "sinc", "acosh"),
    *("atan2", "hypot", "erf", "erfc", "erfinv", "lgamma", "xlogy", "logit", "maximum", "minimum", "sigmoid"),
    *("softplus", "relu", "softmax", "log_softmax", "sum", "mean", "prod", "max", "min", "var", "std", "logsumexp"),
    *("cumulative_sum", "cumulative_prod", "flip", "roll", "tril", "triu", "square", "diagonal", "stack", "concat"),
    *("permute_dims", "erfcx", "log_ndtr", "ndtri", "entr", "xlog1py", "vector_norm", "inv", "solve", "det"),
    *("take", "where", "reshape", "i0", "i0e", "i1", "i1e", "zeta", "gammainc", "gammaincc", "fmax", "fmin", "fmod"),
    *("lerp", "deg2rad", "rad2deg", "logaddexp2"),
]


@pytest.mark.parametrize("name", [name for name in SAME_NAME if name in ops])
def test_grad_fn_is_named_as_in_pytorch(name: str) -> None:
    pair = next((each for each in KNOWN if each.ours.startswith(f"{name}(")), None)
    if pair is None:
        pytest.skip("no such call in the table")
    ours = ops.find(name).grad_fn
    out, _ = theirs(pair)
    assert without_number(ours) == without_number(out.grad_fn.name())


def without_number(name: str) -> str:
    """PyTorch numbers overloads: PowBackward0, PowBackward1."""
    return re.sub(r"Backward\d+$", "Backward", name)


# Autograd's semantics, side by side


def test_accumulation() -> None:
    x = torch.tensor([3.0], dtype=torch.float64, requires_grad=True)
    for _ in range(2):
        (x**2).backward()
    first = ask("grad", "x**2", {"x": [3.0]})["gradients"]["x"]
    again = ask("grad", "x**2", {"x": [3.0]}, accumulate={"x": first})["gradients"]["x"]
    assert again.tolist() == x.grad.tolist()


def test_a_vector_needs_a_cotangent() -> None:
    x = torch.ones(3, requires_grad=True)
    with pytest.raises(RuntimeError):
        (x**2).backward()


def test_the_gradient_of_the_sum_of_the_last_order() -> None:
    """Order k is torch.autograd.grad(g.sum(), x, create_graph=True), again and again."""
    x = torch.tensor([[0.3, -0.4], [1.1, 0.2]], dtype=torch.float64, requires_grad=True)
    g = torch.sin(x @ x) * x
    rows = ask("nth", "sin(x @ x) * x", {"x": x.detach().numpy()}, order=4)["derivatives"]
    for row in rows:
        (g,) = torch.autograd.grad(g.sum(), x, create_graph=True)
        assert_close(row["value"], g.detach().numpy(), 1e-11, f"order {row['order']}")


def test_leaves_and_what_is_tracked() -> None:
    """requires_grad, is_leaf and grad_fn of every node are those of the same program in PyTorch."""
    x, w = torch.ones(2, requires_grad=True), torch.ones(2)
    p = x * w
    y = torch.exp(p)
    d = y.detach()
    s = (y * d).sum()
    made = {"x": x, "w": w, "p": p, "y": y, "d": d, "s": s}
    inputs = {"x": [1.0, 1.0], "w": {"data": [1.0, 1.0], "requires_grad": False}}
    compiled = compiled_question("grad", "p = x * w; y = exp(p); d = detach(y); s = sum(y * d)", inputs)
    nodes = {row["id"]: row for row in describe(compiled, nodes=True)["nodes"]}
    for name, tensor in made.items():
        found = (nodes[name]["requires_grad"], nodes[name]["is_leaf"], nodes[name]["grad_fn"])
        assert found == (tensor.requires_grad, tensor.is_leaf, tensor.grad_fn and tensor.grad_fn.name()), name


def test_complex_gradients_are_conjugate() -> None:
    """The gradient of a real loss of complex numbers is PyTorch's: the direction of steepest ascent."""
    value = np.array([1 + 2j, -0.5 + 0.3j])
    x = torch.tensor(value, requires_grad=True)
    torch.flip(x, (0,)).backward(torch.tensor([1 + 1j, 2 - 1j]))
    found = ask("grad", "flip(x)", {"x": value}, grad_outputs={"out": np.array([1 + 1j, 2 - 1j])})
    assert_close(found["gradients"]["x"], x.grad.numpy(), 1e-15, "gradient")
