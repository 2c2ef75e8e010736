"""What is the mean of rows that no memory holds, and how do their numbers vary together?"""

from prunus.scale.moments.moments_of_shards import ShardMoments, moments_of_shards

__all__ = ["ShardMoments", "moments_of_shards"]
