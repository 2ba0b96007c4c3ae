"""How prefix and chunks become keys and values at their positions, or are found again where they were kept."""
