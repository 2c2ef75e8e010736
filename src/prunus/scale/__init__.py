"""How is a model pruned that doesn't fit: block by block with streamed activations, or shard by shard on the disk?"""

from prunus.scale.block_by_block import prune_layerwise
from prunus.scale.depth import parse_layers, parse_pattern
from prunus.scale.layers import LayerReport
from prunus.scale.shards import EXCLUDED, ShardsReport, prune_shards

__all__ = [
    "EXCLUDED",
    "LayerReport",
    "ShardsReport",
    "parse_layers",
    "parse_pattern",
    "prune_layerwise",
    "prune_shards",
]
