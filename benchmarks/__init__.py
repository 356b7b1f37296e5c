"""What the engine and the service cost, beside the same work by hand and in other systems: `make bench`.

    timing       a row, its contenders and marks, and how they are measured: in turns, medians, within a budget
    rows/        the rows themselves, a block each
    peers/       the same work asked of PyTorch, JAX and HIPS autograd, where they are installed
    servers      the live servers that the HTTP rows ask, and the clients that ask them
    bare, crowd  programs of their own: bare routes to be beside, and a client of many connections
    report       the table, the JSON file, and the block of the README

Marks are shown beside what was found, and nothing fails by a figure. What is checked is that the contenders of a row
agree in their numbers.
"""
