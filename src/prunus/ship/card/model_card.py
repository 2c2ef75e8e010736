"""How does a bundle introduce itself to people: as a model card, in the form that the Hugging Face hub shows?

``README.md``: a YAML front matter that programs read, and sections for people. Every section is there in every bundle; what nobody
measured or said stands there as that. Texts of the owner and of the data are escaped: a class name can't make a heading or a link.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import yaml

from prunus.core.text import plain
from prunus.ship.card.card_facts import CardFacts
from prunus.ship.manifest import WEIGHTS, Manifest

__all__ = ["CARD", "model_card", "name_of", "pipeline_tag"]

CARD = "README.md"
_MOST_NAMES = 30
_UNKNOWN = "Not known: this bundle wasn't made by a run."
_MARKS = re.compile(r"([\\`*_{}\[\]<>#|~!&])")


def model_card(manifest: Manifest, facts: CardFacts) -> str:
    """Return the text of ``README.md``."""
    front = yaml.safe_dump(_front_matter(manifest, facts), sort_keys=False, allow_unicode=True, width=10_000)
    sections = [
        f"# {_text(name_of(manifest))}",
        _introduction(manifest, facts),
        _section("Intended use", _intended(facts)),
        _section("How to use it", _usage(manifest)),
        _section("What it takes and gives", _interface(manifest)),
        _section("Quality", _quality(facts)),
        _section("What was promised", _contract(facts)),
        _section("What was pruned", _pruning(facts)),
        _section("Files for other runtimes", _other_files(facts)),
        _section("Training data", _data(facts)),
        _section("Limits", _limits(facts)),
        _section("How it was made", _origin(manifest, facts)),
    ]
    return f"---\n{front}---\n\n" + "\n\n".join(sections) + "\n"


def name_of(manifest: Manifest) -> str:
    """Return what the model is called."""
    name = manifest.facts.get("name")
    return name if isinstance(name, str) and name else "model"


def pipeline_tag(manifest: Manifest) -> str | None:
    """Return what the hub calls the model's task; None where it has no word for it."""
    if manifest.columns is not None or (manifest.feature_names and manifest.task in ("classification", "regression")):
        return {"classification": "tabular-classification", "regression": "tabular-regression"}.get(manifest.task)
    entry = manifest.takes[0]
    image = len(entry.shape) == 3 and entry.shape[0] in (1, 3, 4)
    ids = entry.dtype == "int64"
    words = {
        "classification": "image-classification" if image else "text-classification" if ids else None,
        "token_classification": "token-classification",
        "language": "text-generation" if ids else None,
        "segmentation": "image-segmentation",
        "detection": "object-detection",
        "retrieval": "feature-extraction",
    }
    return words.get(manifest.task)


def _front_matter(manifest: Manifest, facts: CardFacts) -> dict[str, Any]:
    said, tag = facts.said, pipeline_tag(manifest)
    front: dict[str, Any] = {}
    if said.license:
        front["license"] = said.license.lower()
    if said.language:
        front["language"] = list(said.language)
    front["library_name"] = "prunus"
    if tag is not None:
        front["pipeline_tag"] = tag
    front["tags"] = sorted({"prunus", "pruned", "safetensors", manifest.task.replace("_", "-"), *said.tags})
    results = [
        {"type": one.name, "name": f"{one.name} ({one.split}, {one.model})", "value": one.value}
        for one in facts.metrics
        if one.model == "pruned" and one.split == "test"
    ]
    if results and facts.data is not None:
        data = {"type": _slug(facts.data.source), "name": _line(facts.data.source), "split": "test"}
        task = {"type": tag or manifest.task.replace("_", "-")}
        front["model-index"] = [
            {"name": _line(name_of(manifest)), "results": [{"task": task, "dataset": data, "metrics": results}]}
        ]
    return front


def _introduction(manifest: Manifest, facts: CardFacts) -> str:
    lines = [_text(facts.said.description)] if facts.said.description else []
    dense, pruned = facts.costs.get("dense"), facts.costs.get("pruned")
    if dense is not None and pruned is not None:
        share = (
            f"{pruned.parameters:,} of {dense.parameters:,} parameters and {pruned.macs:,} of {dense.macs:,} MACs stay"
        )
        lines.append(f"A {manifest.task.replace('_', ' ')} model that was pruned with prunus: {share}.")
    else:
        lines.append(f"A {manifest.task.replace('_', ' ')} model, saved with prunus.")
    return "\n\n".join(lines)


def _intended(facts: CardFacts) -> str:
    said = facts.said
    parts = [
        _listed("Meant for", said.intended_use),
        _listed("Meant for these users", said.users),
        _listed("Not meant for", said.out_of_scope),
    ]
    return "\n\n".join(filter(None, parts)) or "Its maker didn't say (`card.intended_use` in the recipe)."


def _usage(manifest: Manifest) -> str:
    code = ["from pathlib import Path", "from prunus.ship import load_bundle, verify_bundle", ""]
    code += [
        'folder = Path("BUNDLE")',
        "found = verify_bundle(folder)  # policy=VerifyPolicy(...) asks for a signature",
    ]
    code += ["bundle = load_bundle(folder, sha256=found.sha256)"]
    code += ["labels = bundle.postprocess(bundle.predict(inputs)).labels"] if manifest.n_output_tensors == 1 else []
    return "```python\n" + "\n".join(code) + "\n```"


def _interface(manifest: Manifest) -> str:
    rows = [
        (entry.name or f"input {number}", entry.dtype, _shape(entry)) for number, entry in enumerate(manifest.takes)
    ]
    text = _table(("input", "type", "shape of one example"), rows)
    outputs = f"It gives {manifest.n_output_tensors} tensor{'s' * (manifest.n_output_tensors > 1)}"
    lines = [text, f"{outputs}; the task is {manifest.task.replace('_', ' ')}."]
    if manifest.class_names:
        lines.append(f"Classes: {_names(manifest.class_names)}.")
    if manifest.feature_names:
        lines.append(f"Features: {_names(manifest.feature_names)}.")
    return "\n\n".join(lines)


def _quality(facts: CardFacts) -> str:
    if not facts.metrics:
        return _UNKNOWN if not facts.run_id else "Nothing was measured."
    rows = [(one.name, one.model, one.split, _number(one.value), _interval(one.low, one.high)) for one in facts.metrics]
    text = _table(("metric", "model", "examples", "value", f"{facts.confidence:.0%} interval"), rows)
    if not facts.comparisons:
        return text
    changes = [
        (one.metric, _number(one.dense), _number(one.pruned), _interval(one.low, one.high), one.verdict)
        for one in facts.comparisons
    ]
    head = ("metric", "dense", "pruned", "interval of the difference", "the pruned model is")
    n_seeds = facts.comparisons[0].n_seeds
    over = f"means over {n_seeds} seeds, of which this is one" if n_seeds > 1 else "one seed"
    return f"{text}\n\nDense and pruned on the same test examples ({over}):\n\n{_table(head, changes)}"


def _contract(facts: CardFacts) -> str:
    contract = facts.contract
    if contract is None:
        return _UNKNOWN if not facts.run_id else "Nothing: the run had no contract."
    lines = [f"* {key.replace('_', ' ')}: {_text(str(value))}" for key, value in contract.items() if value is not None]
    return "\n".join(lines)


def _pruning(facts: CardFacts) -> str:
    if not facts.costs:
        return _UNKNOWN
    rows = [
        (model, f"{cost.parameters:,}", f"{cost.nonzero_parameters:,}", f"{cost.macs:,}", f"{cost.size_bytes:,}")
        for model, cost in facts.costs.items()
    ]
    text = _table(("model", "parameters", "of them not zero", "MACs of one example", "bytes of weights"), rows)
    if not facts.changes:
        return f"{text}\n\nNo units were cut."
    cuts = [(one.layer, one.granularity, str(one.before), str(one.after)) for one in facts.changes]
    return f"{text}\n\n{_table(('layer', 'unit', 'before', 'after'), cuts)}"


def _other_files(facts: CardFacts) -> str:
    if not facts.other_files:
        return (
            _UNKNOWN
            if not facts.run_id
            else "No file: the run wasn't asked for any (`export`, `quantize` in the recipe)."
        )
    return "\n".join(f"* {_text(line)}" for line in facts.other_files)


def _data(facts: CardFacts) -> str:
    data = facts.data
    if data is None:
        return _UNKNOWN
    lines = [f"* source: {_text(data.source)}", f"* SHA-256 of ids, inputs and labels: `{_text(data.fingerprint)}`"]
    lines.append("* examples: " + ", ".join(f"{count:,} {part}" for part, count in data.n.items()))
    if data.n_removed:
        lines.append(f"* left out of the training: {data.n_removed:,}")
    if data.test_set:
        lines.append(f"* the test set: {_text(data.test_set)}")
    lines.append(f"* licence: {_text(facts.said.data_license or 'not said')}")
    return "\n".join(lines)


def _limits(facts: CardFacts) -> str:
    seen = facts.data is not None and facts.data.test_seen
    known = (
        "The weights came from elsewhere and the split from prunus: test examples may have been trained on.",
    ) * seen
    parts = [
        _listed("Known", (*facts.said.limitations, *known)),
        _listed("Harm that it might do", facts.said.ethical),
        _listed("Noted by the run", facts.notes),
    ]
    return "\n\n".join(filter(None, parts)) or "None is known, which doesn't mean that there is none."


def _origin(manifest: Manifest, facts: CardFacts) -> str:
    said = facts.said
    rows = [
        ("version", said.version or "not said (prunus verify shows the signed one)"),
        ("licence", said.license or "not said"),
        ("made by", ", ".join(said.authors) or "not said"),
        ("contact", said.contact or "not said"),
        ("run", facts.run_id or "none"),
        ("seeds", ", ".join(map(str, facts.seeds)) or "none"),
        ("SHA-256 of the weights", manifest.files[WEIGHTS].sha256),
        ("SHA-256 of the dense model's weights", facts.dense_fingerprint or "not known"),
        *((f"version of {name}", version) for name, version in sorted(manifest.versions.items())),
    ]
    return _table(("", ""), rows) + "\n\n`bom.cdx.json` lists the same for programs (CycloneDX 1.6)."


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n{text}"


def _listed(title: str, lines: Iterable[str]) -> str:
    found = [f"* {_text(line)}" for line in lines]
    return f"{title}:\n\n" + "\n".join(found) if found else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([_text(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(_text(name[:100]) for name in names[:_MOST_NAMES]) + more


def _shape(entry: Any) -> str:
    spans = entry.spans or (None,) * len(entry.shape)
    sizes = [str(size) if span is None else f"{size} (may vary)" for size, span in zip(entry.shape, spans, strict=True)]
    return " x ".join(sizes) or "one number"


def _number(value: float) -> str:
    return f"{value:.6g}"


def _interval(low: float | None, high: float | None) -> str:
    return "none" if low is None or high is None else f"{low:.6g} to {high:.6g}"


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-").lower() or "data"


def _line(text: str) -> str:
    """Return a text on one line, so that none of it can end the front matter."""
    return plain(" ".join(text.split()))


def _text(text: str) -> str:
    """Return a text as Markdown that shows it as it is, on one line."""
    return _MARKS.sub(r"\\\1", _line(text))
