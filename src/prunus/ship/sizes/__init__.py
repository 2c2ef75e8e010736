"""How do several sizes of one model lie in one folder, what they have in common once?"""

from prunus.ship.sizes.nested_bundle import SIZES, list_sizes, read_size, save_sizes, write_size

__all__ = ["SIZES", "list_sizes", "read_size", "save_sizes", "write_size"]
