"""How a command runs: in one process or several, alone in its folder, to its end or to Ctrl-C, and with which words."""
