"""What a run will read, and the operations, the time and the memory that takes, before any weight is used."""
