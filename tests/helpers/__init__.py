"""What tests share: tiny models, rows, references written from the formulas, damage and death."""
