"""Needles in a haystack, generated, as `ape_needle*` tasks."""
