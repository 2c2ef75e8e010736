"""How are rows that no memory holds put into clusters?"""

from prunus.scale.clusters.k_means_shards import ShardClusters, k_means_shards

__all__ = ["ShardClusters", "k_means_shards"]
