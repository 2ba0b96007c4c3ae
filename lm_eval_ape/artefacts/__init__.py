"""The files that runs leave behind, each with its schema, and the digests that tell what they belong to."""
