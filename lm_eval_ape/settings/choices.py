"""What some settings can be, for those who check them and for those who do it."""

CHUNKINGS = ("tokens", "passages", "separator")
RETRIEVERS = ("none", "bm25")
POSITIONS = ("shared", "stretched", "serial")
