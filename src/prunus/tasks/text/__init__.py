"""Tasks whose examples are sequences of tokens.

The tasks' order: ``tokens`` has the counts and metrics that they share, ``tagged_spans`` those of named entities.
"""

from prunus.core.code.registry import import_all
from prunus.tasks.text.language import Language
from prunus.tasks.text.sequence_to_sequence import SequenceToSequence
from prunus.tasks.text.tagged_spans import Tagging, span_counts
from prunus.tasks.text.token_classification import TokenClassification
from prunus.tasks.text.tokens import Tokens

__all__ = ["Language", "SequenceToSequence", "Tagging", "TokenClassification", "Tokens", "span_counts"]

import_all(__name__, __path__)
