"""What a model does with encoded chunks: which can be served, how texts are scored, and what stops it."""
