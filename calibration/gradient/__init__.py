"""T and S of layers and heads, by gradient descent from a point."""
