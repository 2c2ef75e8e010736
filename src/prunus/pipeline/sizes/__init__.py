"""How do several sizes of one model come from one plan?"""

from prunus.pipeline.sizes.make_sizes import FACTS, Chosen, Made, make_sizes, read_sizes

__all__ = ["FACTS", "Chosen", "Made", "make_sizes", "read_sizes"]
