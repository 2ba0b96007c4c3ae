"""A model under settings: it encodes prompts, and reads, generates and scores what follows them."""
