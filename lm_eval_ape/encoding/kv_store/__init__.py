"""Keys and values of encoded chunks, kept in memory and on disk, so that what was read once is not read again."""
