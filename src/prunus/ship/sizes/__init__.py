"""How do several sizes of one model lie in one folder, what they have in common once?"""

from prunus.ship.sizes.nested_bundle import (
    SIZES,
    find_sizes,
    folder_of_size,
    list_sizes,
    read_size,
    save_sizes,
    size_of_folder,
    write_size,
)

__all__ = [
    "SIZES",
    "find_sizes",
    "folder_of_size",
    "list_sizes",
    "read_size",
    "save_sizes",
    "size_of_folder",
    "write_size",
]
