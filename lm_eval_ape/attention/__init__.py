"""Attention over groups of keys: on the best kernel, merged, the context with T and S, chunks chosen on the way."""
