"""Configurations for `lm_eval run --config`."""
