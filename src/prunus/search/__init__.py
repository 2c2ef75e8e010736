"""Which settings of a recipe are best? Trials are measured on validation examples, and the best of them are judged once more."""

from prunus.search.run_search import Searched, search
from prunus.search.search_sizes import sizes_of_search

__all__ = ["Searched", "search", "sizes_of_search"]
