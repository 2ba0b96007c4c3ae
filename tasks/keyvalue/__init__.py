"""JSON key-value retrieval (Liu et al., Lost in the Middle, TACL 2024) as `ape_keyvalue*` tasks."""
