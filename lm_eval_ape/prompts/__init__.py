"""How a request's text becomes prefix, chunks and query."""
