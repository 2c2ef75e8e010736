"""How do several sizes of one model learn together, with weights in common?"""

from prunus.recover.sizes.shared_sizes import SharedSizes, Taken, sliced

__all__ = ["SharedSizes", "Taken", "sliced"]
