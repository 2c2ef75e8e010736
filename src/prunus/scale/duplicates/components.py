"""Which rows hang together, by pairs that are alike?"""

from __future__ import annotations

import numpy as np

from prunus.core.types import Ints

__all__ = ["components"]


def components(n: int, pairs: Ints) -> Ints:
    """Return the least row of each row's group, ``(n,)``: rows are in one group where a chain of pairs joins them (union-find).

    >>> components(6, np.array([[1, 2], [5, 2], [3, 4]])).tolist()
    [0, 1, 1, 3, 3, 1]
    """
    root = np.arange(n)
    one, other = pairs.T
    while True:
        low = np.minimum(root[one], root[other])
        differ = (root[one] != low) | (root[other] != low)
        if not differ.any():
            return root
        # Roots are joined to lower roots, and then every row is to its root again; pairs within one group are done with.
        one, other, low = one[differ], other[differ], low[differ]
        np.minimum.at(root, root[one], low)
        np.minimum.at(root, root[other], low)
        while not np.array_equal(root, higher := root[root]):
            root = higher
