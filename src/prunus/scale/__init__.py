"""How is a model pruned that doesn't fit, and a data set scored: block by block with streamed activations, or shard by shard?"""

from prunus.scale.block_by_block import prune_layerwise
from prunus.scale.clusters import ShardClusters, k_means_shards
from prunus.scale.depth import parse_layers, parse_pattern
from prunus.scale.duplicates import ShardDuplicates, near_duplicates_shards
from prunus.scale.layers import LayerReport
from prunus.scale.moments import ShardMoments, moments_of_shards
from prunus.scale.scoring import Scorer, ShardFacts, ShardsScored, score_shard, score_shards
from prunus.scale.shards import EXCLUDED, ShardsReport, prune_shards

__all__ = [
    "EXCLUDED",
    "LayerReport",
    "Scorer",
    "ShardClusters",
    "ShardDuplicates",
    "ShardFacts",
    "ShardMoments",
    "ShardsReport",
    "ShardsScored",
    "k_means_shards",
    "moments_of_shards",
    "near_duplicates_shards",
    "parse_layers",
    "parse_pattern",
    "prune_layerwise",
    "prune_shards",
    "score_shard",
    "score_shards",
]
