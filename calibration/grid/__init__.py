"""T and S from a grid: its points measured, one chosen, and how sure that choice is."""
