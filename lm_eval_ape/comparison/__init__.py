"""Strategies, and runs of other models, side by side on the same documents, with differences that can be believed."""
