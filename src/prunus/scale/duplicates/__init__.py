"""Which rows are nearly alike, of more than one memory or machine holds?"""

from prunus.scale.duplicates.near_duplicates_shards import ShardDuplicates, near_duplicates_shards

__all__ = ["ShardDuplicates", "near_duplicates_shards"]
