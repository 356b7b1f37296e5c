"""Routes, and what they share: reading bodies, writing answers and problems."""
