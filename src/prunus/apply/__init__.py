"""How does a plan become a smaller thing? Masks and shrinking for models, subsets and repairs for data."""

from prunus.apply.class_fit import follow_class
from prunus.apply.expressible import expressible
from prunus.apply.input_features import SelectInputs, replace_features
from prunus.apply.layout import input_dims
from prunus.apply.masks import Masks
from prunus.apply.repair import relabel_examples
from prunus.apply.shrink import Shrunk, shrink
from prunus.apply.subset import remove_examples

__all__ = [
    "Masks",
    "SelectInputs",
    "Shrunk",
    "expressible",
    "follow_class",
    "input_dims",
    "relabel_examples",
    "remove_examples",
    "replace_features",
    "shrink",
]
