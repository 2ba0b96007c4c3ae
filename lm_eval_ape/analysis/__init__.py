"""Why parallel encoding hurts: what attention looks like under each strategy, and how that goes with the score."""
