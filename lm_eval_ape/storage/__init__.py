"""How files are written whole or not at all, and how what others wrote is read: strictly, as data alone."""
