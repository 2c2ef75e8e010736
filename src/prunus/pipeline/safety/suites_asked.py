"""Which suites are to find out how safe a bundle is, and how surely?"""

from __future__ import annotations

from dataclasses import dataclass

from prunus.core.errors import RecipeError, near

__all__ = ["Asked"]

ROBUSTNESS, PRIVACY = ("corruptions", "attacks"), ("loss", "lira")


@dataclass(frozen=True)
class Asked:
    """What is to be found out, and how surely.

    ``robustness`` and ``privacy`` name suites. ``budget`` is the most examples that a suite of robustness looks at; ``reach``
    how far an attacker may go, in each of ``norms`` (None: as usual for the kind of input). ``trigger`` names a file or a
    function, and ``trigger_class`` the class that it is for.

    Raises:
        RecipeError: a suite, or a norm, that isn't there; a trigger without a class.
    """

    harm: bool = False
    robustness: tuple[str, ...] = ()
    privacy: tuple[str, ...] = ()
    trigger: str | None = None
    trigger_class: str | None = None
    norms: tuple[str, ...] = ("linf",)
    reach: float | None = None
    budget: int | None = None
    n_shadows: int = 8
    confidence: float = 0.95
    bootstrap: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        for what, given, known in (
            ("--robustness", self.robustness, ROBUSTNESS),
            ("--privacy", self.privacy, PRIVACY),
            ("--norm", self.norms, ("linf", "l2")),
        ):
            for name in given:
                if name not in known:
                    raise RecipeError(f"{what}: there is no {name!r}: {near(name, known)}")
        if (self.trigger is None) != (self.trigger_class is None):
            raise RecipeError(
                "--trigger and --trigger-class go together: what is laid over inputs, and the class that it is for"
            )
        if self.reach is not None and not self.reach > 0:
            raise RecipeError(f"--reach must be positive, got {self.reach:g}")

    @property
    def anything(self) -> bool:
        """Whether anything is asked for."""
        return bool(self.harm or self.robustness or self.privacy or self.trigger)
