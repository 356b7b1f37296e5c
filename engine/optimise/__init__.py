"""The optimiser: a graph to one that computes the same, in fewer nodes or more safely.

It runs twice. Before a graph is differentiated, safe forms take the place of what overflows or cancels, so that
gradients are stable as well; afterwards, what differentiating and batching left over is cleared away. Rewrites are
rows of text (engine.optimise.rows); the few that no row can say are rules by hand (engine.optimise.rules).

What holds for all of them: shape, dtype and weakness stay; a value moves by 2 units in its last place at most, but
where the posted form overflows, cancels or is 0·∞; no NaN and no infinity of arithmetic is assumed away (x·0 stays),
nor, but in safe forms, the sign of a zero (x + 0 stays); no gradient at a kink changes, which is why some rewrites wait
until there is nothing left to differentiate. Nodes that are differentiated by keep their identity.
"""

from engine.optimise.rewriting import optimised

__all__ = ["optimised"]
