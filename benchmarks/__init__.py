"""What the engine and the service cost, beside the same work by hand and in other systems: `make bench`.

    timing       a row, its contenders, and how they are timed: interleaved, medians, within a budget
    rows/        the rows themselves, a block each
    peers/       the same work asked of PyTorch, JAX and HIPS autograd, where they are installed
    servers      the live servers that the HTTP rows ask, and the client that asks them
    report       the table and the JSON file

Nothing here judges a time. What is checked is that the contenders of a row agree in their numbers.
"""
