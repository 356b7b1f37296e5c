"""Routes by subject. A route states what it takes and calls one thing; it never catches."""
