"""Language modelling with the end of a long text as the query, as `ape_perplexity*` tasks."""
