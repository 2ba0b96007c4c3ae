"""Keys and values of encoded chunks, kept in memory and on disk, so that what was read once is not read again."""

from lm_eval_ape.encoding.kv_store.store import KVStore, open_store

__all__ = ["KVStore", "open_store"]
