"""How do several sizes of one model come from one plan?"""

from prunus.pipeline.sizes.make_sizes import Chosen, Made, make_sizes

__all__ = ["Chosen", "Made", "make_sizes"]
