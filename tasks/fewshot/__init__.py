"""Classification by many demonstrations as `ape_fewshot_*` tasks."""
