"""How is a model set right after a cut, without training: its batch norms, its biases, its weights?

All three look at the calibration set once more. Layers are fitted one by one, in the order of the calls, to what the same layer of
the uncut model gave: so each layer also makes good what the layers before it couldn't. A quarter of the examples is held out, and
judges: what takes a layer's outputs, or the model's, further from the uncut model's is taken back.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import dropwhile
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrize import ParametrizationList

from prunus.recover.refit.counterparts import names_after
from prunus.recover.refit.fit_layers import fit_bias, fit_norm, fit_weights, loses_more
from prunus.recover.refit.formula import Saved, why_weight_is_fixed
from prunus.recover.refit.held_out import FEWEST, Answers, Measure, distance, split_off
from prunus.recover.refit.layer_inputs import channel_dim, is_matrix_layer
from prunus.recover.refit.recurrent_layers import RecurrentCall, fit_recurrent, recurrent_calls, why_not_recurrent
from prunus.recover.refit.run_to_layer import Memory, Replay, Run, Seen, replayable
from prunus.recover.refit.sequential import CallsDifferError, Look, Pair, look, pairs

if TYPE_CHECKING:
    from prunus.data import Batched

__all__ = ["Adjusted", "Adjustment", "Check", "adjust"]

Adjustment = Literal["batch_norm", "bias", "least_squares"]
_ORDER: tuple[Adjustment, ...] = ("least_squares", "bias", "batch_norm")
_MEMORY_BYTES = 4 << 30
_Part = Literal["fit", "held out"]


@dataclass(frozen=True)
class Check:
    """What became of one kind of adjustment: ``before`` and ``after`` are distances to the uncut model's outputs, held out.

    ``fitted`` are the layers that were changed, ``returned`` those whose own outputs got further from what they were, so that they
    alone were taken back; ``left_out`` says why other layers couldn't be adjusted. ``verdict`` is about the kind as a whole.
    """

    kind: Adjustment
    before: float
    after: float
    verdict: Literal["kept", "taken back", "nothing changed"]
    fitted: tuple[str, ...]
    returned: tuple[str, ...]
    left_out: Mapping[str, str]

    def notes(self) -> list[str]:
        """Return one line per reason for which layers were left out, and one where all was taken back."""
        names: dict[str, list[str]] = {}
        for name, reason in self.left_out.items():
            names.setdefault(reason, []).append(name or "the model itself")
        lines = [
            f"{_listed(group)}: {'is' if len(group) == 1 else 'are'}n't adjusted ({self.kind}), since {reason}"
            for reason, group in names.items()
        ]
        if self.verdict == "taken back":
            lines.append(
                f"{self.kind} is taken back: on examples that are held out, the outputs were {self.before:.3g} from the uncut "
                f"model's before and {self.after:.3g} after"
            )
        return lines


@dataclass(frozen=True)
class Adjusted:
    """What was adjusted, on how many examples, and notes on what couldn't be."""

    checks: tuple[Check, ...]
    notes: tuple[str, ...]
    n_fitted: int
    n_held_out: int
    measure: Measure

    @property
    def distance(self) -> float | None:
        """How far the outputs are now, held out; None where nothing was looked at."""
        last = self.checks[-1] if self.checks else None
        return None if last is None else last.after if last.verdict == "kept" else last.before

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; a distance that isn't finite becomes None."""
        facts = asdict(self)
        for check in facts["checks"]:
            check |= {key: check[key] if math.isfinite(check[key]) else None for key in ("before", "after")}
        return facts


def adjust(
    model: nn.Module,
    reference: nn.Module,
    examples: Batched,
    kinds: Sequence[Adjustment],
    *,
    held_out: Batched | None = None,
    target: nn.Module | Answers | None = None,
    measure: Measure = "relative",
    kept: Mapping[str, Tensor] | None = None,
    folded: Mapping[str, Tensor] | None = None,
    masks: Mapping[str, Tensor] | None = None,
    batch_size: int = 256,
    damping: float = 0.01,
    memory_bytes: int = _MEMORY_BYTES,
) -> Adjusted:
    """Set ``model`` right in place where that brings its outputs closer, and say what was kept. It ends in evaluation mode.

    Args:
        model: after the cut.
        reference: before the cut; not changed but for its mode.
        examples: the calibration set.
        kinds: ``least_squares`` fits weights and biases, ``bias`` only the means of the outputs, ``batch_norm`` moves running
            statistics by what the cut did to them. They are done in this order, whatever order they are given in.
        held_out: what the result is judged on; without it every fourth of ``examples``, which then has no part in the fits.
        target: whose outputs (or answers to ``held_out``) the model's should be close to in the end; without it ``reference``'s.
        measure: how far outputs are from others, see :func:`distance`; ``kl`` for class scores.
        kept: which outputs of the reference's layer are left, by that layer's name; without an entry all of them.
        folded: by what the outputs that are left were multiplied, by that layer's name; without an entry by 1.
        masks: single weights that stay (True), by parameter name: the others stay zero.
        damping: of the second moments, as a share of their mean: how strongly the weights are held where they are.
        memory_bytes: a layer whose second moments and system of equations would take more is fitted by conjugate gradients, which
            need its inputs; where those take more, too, it isn't fitted by least squares.

    References:
        He et al., ICCV 2017, arXiv:1707.06168 (least squares after channel pruning); Nagel et al., ICCV 2019, arXiv:1906.04721
        (bias correction).
    """
    if held_out is None:
        if len(examples) < FEWEST:
            note = (
                f"nothing is adjusted: with {len(examples)} calibration examples none can be held out to judge it; expected at "
                f"least {FEWEST}, give more (data.split.calibration, n_calibration)"
            )
            return Adjusted((), (note,), len(examples), 0, measure)
        examples, held_out = split_off(examples)
    names, first = names_after(model, reference), next(iter(examples.batches(2))).inputs
    walk = _Walk(
        model,
        reference,
        examples,
        held_out,
        {f"{names[old]}{rest}": left for key, left in (kept or {}).items() for old, rest in _held_by(key, names)},
        {names[old]: factors for old, factors in (folded or {}).items() if old in names},
        masks or {},
        batch_size,
        damping,
        memory_bytes,
        {new: old for old, new in names.items()},
        (replayable(model, first), replayable(reference, first)),
    )
    seen = look(model, examples)
    before = {names[old]: one for old, one in look(reference, examples).items() if old in names}
    checks: list[Check] = []
    wanted = target if isinstance(target, Answers) else Answers(target or reference)
    judge = partial(distance, model, wanted, held_out, measure=measure, batch_size=batch_size)
    far = judge()
    exact: frozenset[str] = frozenset()  # outputs that have their old means, since least squares fitted them
    for kind in (kind for kind in _ORDER if kind in kinds):
        layers, reasons = walk.choose(kind, seen, before)
        if kind == "bias":
            layers = {name: layers[name] for name in dropwhile(exact.__contains__, layers)}
        whole = Saved(model)
        check = walk.run(kind, layers, reasons)
        if kind == "least_squares":
            exact = frozenset(layers) - {*check.left_out, *check.returned}
        if whole.unchanged:
            checks.append(replace(check, before=far, after=far))
            continue
        now = judge()
        verdict: Literal["kept", "taken back"] = "kept" if now <= far else "taken back"
        checks.append(replace(check, before=far, after=now, verdict=verdict))
        if verdict == "kept":
            far = now
        else:
            whole.restore()
            exact = frozenset()
    notes = tuple(line for check in checks for line in check.notes())
    return Adjusted(tuple(checks), notes, len(examples), len(held_out), measure)


@dataclass(frozen=True)
class _Turn:
    """A layer whose turn it is, its counterpart, and what runs the two models as far as them."""

    name: str
    layer: nn.Module
    old: nn.Module
    runs: Mapping[_Part, tuple[Run, Run]]


@dataclass(frozen=True)
class _Walk:
    """Layer by layer through two models; all names but those in ``names_before`` are the smaller model's."""

    model: nn.Module
    reference: nn.Module
    examples: Batched
    held_out: Batched
    kept: Mapping[str, Tensor]
    folded: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]
    batch_size: int
    damping: float
    memory_bytes: int
    names_before: Mapping[str, str]
    seen: tuple[Seen, Seen]

    def choose(
        self, kind: Adjustment, seen: Mapping[str, Look], before: Mapping[str, Look]
    ) -> tuple[dict[str, nn.Module], dict[str, str]]:
        """Return the layers that can be adjusted, and why others can't."""
        layers, reasons = {}, {}
        for name, one in seen.items():
            if not _is_for(kind, one.module):
                continue
            why = self._why_not(kind, name, one, before.get(name))
            if why is None:
                layers[name] = one.module
            else:
                reasons[name] = why
        for name, old in before.items():
            if name not in seen and _is_for(kind, old.module):
                reasons[name] = "the pruned model doesn't call a layer of that name"
        if kind == "least_squares":
            reasons |= {name: why for name, why in self._of_other_kinds() if name not in seen and name not in reasons}
        return layers, reasons

    def _of_other_kinds(self) -> Iterator[tuple[str, str]]:
        """Yield what holds matrices but multiplies with them in a way of its own; a table of embeddings reads no inputs."""
        for name, module in self.model.named_modules():
            holds = any(own is not None and own.dim() > 1 for own in module._parameters.values())
            if holds and not isinstance(module, (nn.Embedding, nn.EmbeddingBag, ParametrizationList)):
                called = is_matrix_layer(module)
                yield name, "it isn't called by itself" if called else f"a {type(module).__name__} isn't fitted"

    def _why_not(self, kind: Adjustment, name: str, now: Look, before: Look | None) -> str | None:
        layer = now.module
        if before is None:
            return "the uncut model has no layer that it could be compared with"
        if isinstance(layer, nn.RNNBase):
            return why_not_recurrent(layer)
        if not self._is_cut_of(name, now, before):
            return "its outputs have another shape than those that are left of the uncut model's"
        if kind != "batch_norm" and self._frozen(layer):
            return "its parameters are frozen (requires_grad) and others aren't"
        if kind == "bias" and not now.adds_its_bias:
            return "its outputs don't move with its bias"
        if kind != "least_squares":
            return None
        if not now.multiplies:
            return f"it doesn't just multiply with its weight ({type(layer).__name__} has a forward of its own)"
        if any(key.startswith(f"{name}.parametrizations.") for key in self.masks):
            return "its weight is masked behind a parametrization"
        return why_weight_is_fixed(layer) or self._shared(name)

    def _is_cut_of(self, name: str, now: Look, before: Look) -> bool:
        shapes = []
        for shape in before.shapes:
            left = list(shape)
            if name in self.kept:
                left[channel_dim(before.module, len(shape))] = len(self.kept[name])
            shapes.append(tuple(left))
        return shapes == now.shapes

    def _frozen(self, layer: nn.Module) -> bool:
        """Return whether somebody froze the layer: a model that is frozen as a whole is only not to be trained."""
        own = [parameter.requires_grad for parameter in layer.parameters()]
        return bool(own) and not any(own) and any(parameter.requires_grad for parameter in self.model.parameters())

    def _shared(self, name: str) -> str | None:
        """Say which other module holds the layer's weight, too: a fit of one would change the other."""
        weight = self.model.get_submodule(name).weight
        for other, module in self.model.named_modules():
            if other != name and any(held is weight for held in module._parameters.values()):
                return f"{other} has the same weight"
        return None

    def run(self, kind: Adjustment, layers: Mapping[str, nn.Module], reasons: dict[str, str]) -> Check:
        """Adjust the layers in their order; those that can't be after all join ``reasons``."""
        fitted: list[str] = []
        returned: list[str] = []
        for turn in self._turns(layers):
            name, layer, before = turn.name, turn.layer, Saved(turn.layer)
            try:
                if isinstance(layer, nn.RNNBase):
                    why, worse = self._fit_recurrent(turn, layer)
                    if why is not None:
                        reasons[name] = why
                    elif worse or not before.unchanged:
                        (returned if worse else fitted).append(name)
                    continue
                why = self._fit(kind, turn)
                if why is not None:
                    reasons[name] = why
                elif before.unchanged:
                    continue
                elif kind != "batch_norm" and loses_more(layer, before, self._pairs(turn, "held out")):
                    returned.append(name)
                else:
                    fitted.append(name)
            except CallsDifferError:
                before.restore()
                reasons[name] = "it isn't called on the same in both models"
        return Check(kind, 0.0, 0.0, "nothing changed", tuple(fitted), tuple(returned), reasons)

    def _turns(self, layers: Mapping[str, nn.Module]) -> Iterator[_Turn]:
        """Yield the layers one by one, with what runs both models up to each of them."""
        memory, models = Memory(), (self.model, self.reference)
        now = list(layers.values())
        old = [self.reference.get_submodule(self.names_before[name]) for name in layers]
        parts: tuple[_Part, ...] = ("fit", "held out")
        replays = {part: [Replay(m, seen, memory) for m, seen in zip(models, self.seen, strict=True)] for part in parts}
        for place, name in enumerate(layers):
            runs = {
                part: (new.up_to(now[place], now[place:]), before.up_to(old[place], old[place:]))
                for part, (new, before) in replays.items()
            }
            yield _Turn(name, now[place], old[place], runs)

    def _fit(self, kind: Adjustment, turn: _Turn) -> str | None:
        seen = self._pairs(turn, "fit")
        if kind == "least_squares":
            weight = f"{turn.name}.weight".removeprefix(".")
            mask, allowed = self.masks.get(weight), self.memory_bytes
            return fit_weights(turn.layer, seen, mask, damping=self.damping, memory_bytes=allowed)
        if kind == "bias":
            fit_bias(turn.layer, seen)
        else:
            fit_norm(turn.layer, seen, self.kept.get(turn.name))
        return None

    def _fit_recurrent(self, turn: _Turn, layer: nn.RNNBase) -> tuple[str | None, bool]:
        name, old = turn.name, turn.old
        if type(old) is not type(layer):
            return "the uncut model has another kind of layer there", False
        assert isinstance(old, nn.RNNBase)

        def calls(part: _Part, examples: Batched) -> list[tuple[RecurrentCall, RecurrentCall]]:
            found: list[tuple[RecurrentCall, RecurrentCall]] = []
            for batch in examples.batches(self.batch_size):
                both = [
                    recurrent_calls(one, partial(run, batch))
                    for one, run in zip((layer, old), turn.runs[part], strict=True)
                ]
                if len(both[0]) != len(both[1]):
                    raise CallsDifferError
                found += zip(*both, strict=True)
            return found

        states = {key.rpartition(".")[2]: left for key, left in self.kept.items() if key.rpartition(".")[0] == name}
        fit, held_out = calls("fit", self.examples), calls("held out", self.held_out)
        return fit_recurrent(layer, old, fit, held_out, states, damping=self.damping)

    def _pairs(self, turn: _Turn, part: _Part) -> Iterable[Pair]:
        return pairs(
            turn.runs[part],
            (turn.layer, turn.old),
            self.examples if part == "fit" else self.held_out,
            kept=self.kept.get(turn.name),
            folded=self.folded.get(turn.name),
            batch_size=self.batch_size,
        )


def _held_by(key: str, names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the module that a key of ``kept`` is about, and what follows its name: a state of a recurrent layer has its own."""
    if key in names:
        yield key, ""
    elif key.rpartition(".")[0] in names:
        owner, _, rest = key.rpartition(".")
        yield owner, f".{rest}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _is_for(kind: Adjustment, module: Any) -> bool:
    """Return whether a kind is about such a layer at all."""
    if isinstance(module, _BatchNorm):
        return kind == "batch_norm" and module.running_mean is not None
    if isinstance(module, nn.RNNBase):
        return kind == "least_squares"
    return {"least_squares": is_matrix_layer(module), "bias": module.bias is not None}.get(kind, False)
