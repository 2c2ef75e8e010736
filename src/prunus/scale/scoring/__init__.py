"""How are scores computed for more examples than memory holds, shard by shard?"""

from prunus.scale.scoring.score_shard import Scorer, ShardFacts, score_shard
from prunus.scale.scoring.scoring_run import ShardsScored, score_shards

__all__ = ["Scorer", "ShardFacts", "ShardsScored", "score_shard", "score_shards"]
