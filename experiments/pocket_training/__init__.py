"""How the shipped model was trained: lessons, rows, steps, and the card of what came out."""
