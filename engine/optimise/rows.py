"""The rewrites, one a row: pattern, replacement, and what it is good for. engine.optimise.patterns reads them.

    pattern => replacement  # meaning
        if conditions, where there are any

A table is for graphs BEFORE they are differentiated, AFTER, or both; and for results of some kinds of dtype. A row that
changes what a gradient is at a kink belongs after; one that changes what is done with 0·∞ belongs before, where it
decides for values and gradients alike. Every row has a fixture in tests/engine/rewrites.txt.
"""

from __future__ import annotations

from engine.optimise.patterns import Row, read_rows

ANY = "biufc"

SAFE = """
log(sum(exp(x), axis=a, keepdims=k))                   => logsumexp(x, axis=a, keepdims=k)  # exp cannot overflow
log(mean(exp(x), axis=a, keepdims=k))                  => logsumexp(x, axis=a, keepdims=k) - log_count(x, a)  # nor here
    if is_filled(x, a)
log(exp(x) + exp(y))                                   => logaddexp(x, y)           # nor here
log(exp(x))                                            => x                         # nor here
log(1 + x)                                             => log1p(x)                  # exact near 0
log(1 - x)                                             => log1p(-x)                 # exact near 0
log1p(exp(x))                                          => softplus(x)               # exp cannot overflow
log(sigmoid(x))                                        => -softplus(-x)             # no log of 0 far below 0
log(softmax(x, axis=a))                                => log_softmax(x, axis=a)    # no log of 0
log(ndtr(x))                                           => log_ndtr(x)               # no log of 0 far below 0
x - logsumexp(x, axis=a, keepdims=true)                => log_softmax(x, axis=a)    # one pass
exp(x) / sum(exp(x), axis=a, keepdims=true)            => softmax(x, axis=a)        # no ∞/∞
softmax(x - max(x, axis=a, keepdims=true), axis=a)     => softmax(x, axis=a)        # it does that itself
log_softmax(x - max(x, axis=a, keepdims=true), axis=a) => log_softmax(x, axis=a)    # it does that itself
exp(x) / (1 + exp(x))                                  => sigmoid(x)                # no ∞/∞
reciprocal(1 + exp(x))                                 => sigmoid(-x)               # its gradient has no ∞/∞
1 - sigmoid(x)                                         => sigmoid(-x)               # does not cancel
1 - ndtr(x)                                            => ndtr(-x)                  # does not cancel
1 - erf(x)                                             => erfc(x)                   # does not cancel
1 - erfc(x)                                            => erf(x)                    # does not cancel
exp(x) - 1                                             => expm1(x)                  # does not cancel near 0
1 - exp(x)                                             => 0 - expm1(x)              # does not cancel near 0
1 - cos(x)                                             => 2 * square(sin(x * 0.5))  # does not cancel near 0
x * log(y)                                             => xlogy(x, y)               # 0·log(0) is 0
    if may_be_zero(x)
x * log1p(y)                                           => xlog1py(x, y)             # 0·log(0) is 0
    if may_be_zero(x)
"""

IDENTITIES = """
x * 1       => x              # exact
x * -1      => -x             # exact
x / 1       => x              # exact
x - 0       => x              # exact; x + 0 is not, where x is -0
x + -0.0    => x              # exact
x ** 1      => x              # exact
1 / x       => reciprocal(x)  # exact, and its slope closes: -(out·out)
--x         => x              # exact
x + -y      => x - y          # exact
x - -y      => x + y          # exact
-x * -y     => x * y          # exact
-x / -y     => x / y          # exact
-x * c      => x * -c         # exact
-x / c      => x / -c         # exact
-(x * c)    => x * -c         # exact
-(x / c)    => x / -c         # exact
x * c1 * c2 => x * (c1 * c2)  # one product; the constants' own is exact
    if is_exact_product(c1, c2)
abs(-x)     => abs(x)         # even
abs(abs(x)) => abs(x)         # idempotent
square(-x)  => square(x)      # even
cos(-x)     => cos(x)         # even
cosh(-x)    => cosh(x)        # even
"""

WHOLE = """
x + 0 => x  # a whole number has no -0
x - 0 => x  # exact
x * 1 => x  # exact
--x   => x  # exact
"""

SELECTION = """
where(m, x, x)  => x               # either way
where(~m, x, y) => where(m, y, x)  # one negation less
~~m             => m               # of booleans; of numbers the dtype differs
m & m           => m               # of booleans
maximum(x, x)   => x               # a tie of equals
minimum(x, x)   => x               # a tie of equals
"""

BRANCHES = """
where(c, x, y)              => x               # the other branch can give no gradient any more
    if is_true(c)
where(c, x, y)              => y               # the other branch can give no gradient any more
    if is_false(c)
where(m, where(m, x, y), z) => where(m, x, z)  # chosen already
where(m, x, where(m, y, z)) => where(m, x, z)  # chosen already
"""

STRUCTURE = """
reshape(reshape(x, shape=s), shape=t)            => reshape(x, shape=t)              # the last shape counts
permute_dims(permute_dims(x, axes=p), axes=q)    => permute_dims(x, axes=after(p, q))  # one permutation
permute_dims(x, axes=p)                          => reshape(x, shape=permuted(x, p))  # order is kept
    if moves_only_ones(x, p)
broadcast_to(x, shape=s)                         => reshape(x, shape=s)              # nothing is stretched
    if has_size(x, s)
reshape(sum(x, axis=a), shape=s)                 => sum(x, axis=a, keepdims=true)    # sum can keep them
    if is_kept_shape(x, a, s)
reshape(sum(x, axis=a, keepdims=true), shape=s)  => sum(x, axis=a)                   # sum can drop them
    if is_dropped_shape(x, a, s)
reshape(mean(x, axis=a), shape=s)                => mean(x, axis=a, keepdims=true)   # mean can keep them
    if is_kept_shape(x, a, s)
reshape(mean(x, axis=a, keepdims=true), shape=s) => mean(x, axis=a)                  # mean can drop them
    if is_dropped_shape(x, a, s)
flip(flip(x, axis=a), axis=a)                    => x                                # turned twice
conj(conj(x))                                    => x                                # turned twice
astype(astype(x, dtype=a), dtype=b)              => astype(x, dtype=b)               # nothing was lost between
    if keeps_values(x, a)
slice(x, index=i)                                => reshape(x, shape=indexed(x, i))  # only ones come and go
    if takes_all(x, i)
slice(unslice(x, shape=s, index=i), index=i)     => x                                # what was put there
permute_dims(matmul(permute_dims(x, axes=p), permute_dims(y, axes=p)), axes=p) => matmul(y, x)  # (xᵀyᵀ)ᵀ = yx
    if exchanges_last_two(p)
"""

# The adjoint of stretching is a sum: merged before, it would be taken in another order, and round otherwise.
STRETCHES = """
broadcast_to(broadcast_to(x, shape=s), shape=t) => broadcast_to(x, shape=t)  # the last shape counts
broadcast_to(reshape(x, shape=s), shape=t)      => broadcast_to(x, shape=t)  # broadcasting adds them
    if adds_leading_ones(x, s)
reshape(broadcast_to(x, shape=s), shape=t)      => broadcast_to(reshape(x, shape=placed(x, s, t)), shape=t)  # smaller
    if differ_by_ones(s, t)
"""

LEAN = """
x * x                       => square(x)                           # one operand; as a product its series is shorter
    if is_long(x)
sqrt(x * x)                 => abs(x)                              # no overflow; its slope at 0 is another
x ** 2                      => square(x)                           # no power
x ** -1                     => reciprocal(x)                       # no power
x / c                       => x * (1 / c)                         # exact, and products are faster
    if is_power_of_two(c)
sqrt(square(x))             => abs(x)                              # no overflow; its slope at 0 is another
square(abs(x))              => square(x)                           # even
sum(x, axis=a, keepdims=k)  => reshape(x, shape=reduced(x, a, k))  # single elements
    if is_one_long(x, a)
mean(x, axis=a, keepdims=k) => reshape(x, shape=reduced(x, a, k))  # single elements
    if is_one_long(x, a)
max(x, axis=a, keepdims=k)  => reshape(x, shape=reduced(x, a, k))  # single elements
    if is_one_long(x, a)
min(x, axis=a, keepdims=k)  => reshape(x, shape=reduced(x, a, k))  # single elements
    if is_one_long(x, a)
prod(x, axis=a, keepdims=k) => reshape(x, shape=reduced(x, a, k))  # single elements
    if is_one_long(x, a)
"""

NO_LONGER_DIFFERENTIATED = """
positive(x)                => x  # a mark of what was differentiated by
detach(x)                  => x  # shapes gradients, not values
grad_scale(x, scale=s)     => x  # shapes gradients, not values
grad_clip(x, min=s, max=t) => x  # shapes gradients, not values
"""

_BOTH = [
    *read_rows(IDENTITIES, "f", is_thrifty=True),
    *read_rows(WHOLE, "iu"),
    *read_rows(SELECTION, ANY),
    *read_rows(STRUCTURE, ANY),
]
BEFORE: list[Row] = [*read_rows(SAFE, "f"), *_BOTH]
AFTER: list[Row] = [
    *read_rows(NO_LONGER_DIFFERENTIATED, ANY),
    *_BOTH,
    *read_rows(STRETCHES, ANY),
    *read_rows(BRANCHES, ANY),
    *read_rows(LEAN, "f"),
]
