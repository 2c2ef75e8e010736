"""How does a bundle introduce itself to auditors: as a bill of materials for machine learning, in CycloneDX 1.6?

``bom.cdx.json`` names the model with the hashes of its files, the dense model that it comes from, the data that it was trained on,
and the packages that made it, and holds the same model card as ``README.md`` in the standard's own fields. It is plain JSON that
is written here: no package is needed, and the standard's own schema is what the tests validate it with. The serial number follows
from the content, and there is no time in it: the same seed gives the same bill.
"""

from __future__ import annotations

import re
import uuid
from importlib import metadata
from typing import Any

from prunus.core.files.sealed import tree_sha256
from prunus.ship.card.card_facts import CardFacts, Comparison, Measured
from prunus.ship.card.model_card import name_of
from prunus.ship.manifest import WEIGHTS, Manifest

__all__ = ["BILL", "bill_of_materials"]

BILL = "bom.cdx.json"
_NAMESPACE = uuid.UUID("6f1d6c3e-6f0b-5a53-9d0e-3c1b0d7f9a11")
_MODEL, _DENSE, _DATA = "model", "dense-model", "training-data"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SUPERVISED = ("classification", "multilabel", "regression", "segmentation", "detection", "token_classification")


def bill_of_materials(manifest: Manifest, facts: CardFacts) -> dict[str, Any]:
    """Return the plain values of ``bom.cdx.json``."""
    packages = [_package(name, version) for name, version in sorted(manifest.versions.items())]
    data = [] if facts.data is None else [_data(facts)]
    refs = [one["bom-ref"] for one in (*data, *packages)]
    bill: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"lifecycles": [{"phase": "build"}], "component": _model(manifest, facts)},
        "components": [*data, *packages, *_files(manifest)],
        "dependencies": [{"ref": _MODEL, "dependsOn": sorted(refs)}, *({"ref": ref} for ref in sorted(refs))],
    }
    return {**bill, "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, tree_sha256(bill))}"}


def _model(manifest: Manifest, facts: CardFacts) -> dict[str, Any]:
    said = facts.said
    found: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": _MODEL,
        "name": name_of(manifest),
        "hashes": _hashes(manifest.files[WEIGHTS].sha256),
        "modelCard": _card(manifest, facts),
        "pedigree": _pedigree(manifest, facts),
        "properties": _properties(manifest, facts),
    }
    if said.version:
        found["version"] = said.version
    if said.description:
        found["description"] = said.description
    if said.license:
        found["licenses"] = [{"expression": said.license}]
    if said.authors:
        found["authors"] = [{"name": author} for author in said.authors]
    if said.tags:
        found["tags"] = sorted(set(said.tags))
    return found


def _card(manifest: Manifest, facts: CardFacts) -> dict[str, Any]:
    approach = "supervised" if manifest.task in _SUPERVISED else None
    parameters: dict[str, Any] = {
        "task": manifest.task,
        "modelArchitecture": manifest.model.builder or "not known",
        "inputs": [{"format": f"{one.dtype} {list(one.shape)}"} for one in manifest.takes],
        "outputs": [{"format": f"tensor {number}"} for number in range(manifest.n_output_tensors)],
    }
    if approach is not None:
        parameters["approach"] = {"type": approach}
    if facts.data is not None:
        parameters["datasets"] = [{"ref": _DATA}]
    said = facts.said
    considerations: dict[str, Any] = {
        "users": list(said.users),
        "useCases": list(said.intended_use),
        "technicalLimitations": [
            *said.limitations,
            *(f"Not meant for: {use}" for use in said.out_of_scope),
            *facts.notes,
        ],
        "performanceTradeoffs": [_traded(one) for one in facts.comparisons],
        "ethicalConsiderations": [{"name": risk} for risk in said.ethical],
    }
    return {
        "modelParameters": parameters,
        "quantitativeAnalysis": {"performanceMetrics": [_metric(one) for one in facts.metrics]},
        "considerations": {key: value for key, value in considerations.items() if value},
    }


def _metric(one: Measured) -> dict[str, Any]:
    found: dict[str, Any] = {"type": one.name, "value": f"{one.value:.6g}", "slice": f"{one.split}, {one.model} model"}
    if one.low is not None and one.high is not None:
        found["confidenceInterval"] = {"lowerBound": f"{one.low:.6g}", "upperBound": f"{one.high:.6g}"}
    return found


def _traded(one: Comparison) -> str:
    bounds = "" if one.low is None or one.high is None else f" (difference {one.low:.6g} to {one.high:.6g})"
    return f"{one.metric}: dense {one.dense:.6g}, pruned {one.pruned:.6g}{bounds}: {one.verdict}"


def _pedigree(manifest: Manifest, facts: CardFacts) -> dict[str, Any]:
    dense: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": _DENSE,
        "name": f"{name_of(manifest)} (dense)",
        "description": "the model before it was pruned",
    }
    if _SHA256.fullmatch(facts.dense_fingerprint):
        dense["hashes"] = _hashes(facts.dense_fingerprint)
    cuts = [f"{one.layer} ({one.granularity}): {one.before} -> {one.after}" for one in facts.changes]
    return {"ancestors": [dense], "notes": "; ".join(cuts) or "no units were cut, or none are known"}


def _data(facts: CardFacts) -> dict[str, Any]:
    data = facts.data
    assert data is not None
    found: dict[str, Any] = {
        "type": "data",
        "bom-ref": _DATA,
        "name": data.source,
        "data": [
            {
                "type": "dataset",
                "name": data.source,
                "contents": {
                    "properties": [
                        *(_property(f"examples.{part}", str(count)) for part, count in data.n.items()),
                        _property("examples.removed", str(data.n_removed)),
                    ]
                },
            }
        ],
        "properties": [_property("fingerprint", data.fingerprint)],
    }
    if data.test_set:
        found["description"] = f"test set: {data.test_set}"
    if _SHA256.fullmatch(data.fingerprint):
        found["hashes"] = _hashes(data.fingerprint)
    if facts.said.data_license:
        found["licenses"] = [{"expression": facts.said.data_license}]
    return found


def _package(name: str, version: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": "library" if name != "torch" else "framework",
        "bom-ref": f"pkg:pypi/{name}@{version}",
        "name": name,
        "version": version,
        "purl": f"pkg:pypi/{name}@{version.replace('+', '%2B')}",
    }
    try:
        declared = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return found
    if "License-Expression" in declared:
        found["licenses"] = [{"expression": declared["License-Expression"]}]
    return found


def _files(manifest: Manifest) -> list[dict[str, Any]]:
    return [
        {"type": "file", "bom-ref": f"file:{name}", "name": name, "hashes": _hashes(entry.sha256)}
        for name, entry in sorted(manifest.files.items())
    ]


def _properties(manifest: Manifest, facts: CardFacts) -> list[dict[str, str]]:
    found: dict[str, Any] = {"format": manifest.format, "kind": "class" if manifest.edits is not None else "graph"}
    if facts.run_id:
        found["run_id"] = facts.run_id
        found["seeds"] = ", ".join(map(str, facts.seeds))
    found |= {f"contract.{key}": value for key, value in (facts.contract or {}).items() if value is not None}
    found |= {f"plan.{key}": value for key, value in facts.plan_fingerprints.items()}
    for model, cost in facts.costs.items():
        found |= {f"{model}.parameters": cost.parameters, f"{model}.macs": cost.macs, f"{model}.bytes": cost.size_bytes}
    return [_property(key, str(value)) for key, value in found.items()]


def _property(name: str, value: str) -> dict[str, str]:
    return {"name": f"prunus:{name}", "value": value}


def _hashes(sha256: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": sha256}]
