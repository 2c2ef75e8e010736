"""Which JSON and YAML does somebody craft?"""

from __future__ import annotations

from canary import MODULE
from hostile_bytes import BAD_JSON, grown_yaml, safetensors
from hostile_loaders import CASES, json_cases, reseal, write

json_cases("bundle", "run/bundle/manifest.json")
json_cases("graph", "run/bundle/graph.json", lambda folder: reseal(folder / "run/bundle"))
json_cases("plan", "run/plan/plan.json")
json_cases("record", "run/record.json")
json_cases("shard index", "shards/model.safetensors.index.json")
for what in (
    "nested ten million times",
    "three million values",
    "an integer of 5,000 digits",
    "a key twice among 200,000",
    "a list",
    "NaN",
):
    CASES["safetensors"][f"a header that is {what}"] = lambda folder, what=what: safetensors(
        folder / "w.safetensors", BAD_JSON[what]
    )


_R = "data: {source: 'sklearn:iris'}\n"
CASES["recipe"] |= {
    name: write("r.yaml", text.encode() if isinstance(text, str) else text)
    for name, text in {
        "aliases of aliases": grown_yaml("[", "x", "]"),
        "merges of merges": grown_yaml("{<<: [", "{k: 1}", "]}"),
        "an alias of itself": _R + "train: &a {epochs: *a}",
        "nested fifty thousand times": "[" * 50_000,
        "mappings nested five thousand times": "{a: " * 5_000,
        "dashes nested three thousand times": "- " * 3_000 + "a",
        "an integer of 5,000 digits": _R + "seeds: [" + "9" * 5_000 + "]",
        "an integer of 100,000 hexadecimal digits": _R + "seeds: [0x" + "f" * 100_000 + "]",
        "a long text": _R + "name: " + "b" * 300_000,
        "a hundred megabytes": b"#" * 100_000_000,
        "sixty thousand values": _R + "seeds: [" + "1," * 60_000 + "]",
        "a tag that calls": "!!python/object/apply:os.system [touch ran]",
        "a tag that imports": f"!!python/name:{MODULE}.f",
        "a tag that doesn't fit": "!!bool maybe",
        "a number that is empty": '!!int ""',
        "a time that is none": "!!timestamp soon",
        "a mapping that is a list": "!!map [1]",
        "a key that is a list": "? [a]\n: b",
        "a key twice": _R + _R,
        "an unknown key": _R + "exec: 1",
        "not UTF-8": b"\xff\xfe\x00",
        "zero bytes": b"\0" * 10,
        "terminal escapes": _R + "\x1b[2J: 1",
        "escapes in quotes": _R + '"\\x1b[2J\\u202e": 1',
        "empty": "",
        "a list": "[1]",
        "two documents": "---\na: 1\n---\nb: 2",
        "infinite epochs": _R + "train: {epochs: .inf}",
        "a keep fraction that is no number": _R + "strategy: {keep_fraction: .nan}",
        "negative epochs": _R + "train: {epochs: -1}",
        "a value where a section is": "data: 3",
        "a section of a hundred unknown keys": _R + "train: {" + ", ".join(f"k{i}: {i}" for i in range(100)) + "}",
    }.items()
}
