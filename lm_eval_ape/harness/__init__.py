"""Where lm-evaluation-harness calls us, and we it: the model `ape-hf`, its arguments, tasks, metrics and samples."""
