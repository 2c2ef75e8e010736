"""How safe is a model that is there already: whom does it harm, what does it withstand, what does it tell of its training?"""

from prunus.pipeline.safety.evaluate_safety import evaluate_safety
from prunus.pipeline.safety.suites_asked import Asked

__all__ = ["Asked", "evaluate_safety"]
