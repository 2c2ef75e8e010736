"""Which settings of a recipe are best? Trials are measured on validation examples, and the best of them are judged once more."""

from prunus.search.run_search import Searched, search

__all__ = ["Searched", "search"]
