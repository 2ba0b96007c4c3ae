"""Which checkpoint a model's name means: our short names, GGUF files, folders and names on the hub."""
