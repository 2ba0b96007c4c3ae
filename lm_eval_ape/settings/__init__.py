"""What can be asked for: strategies and their settings, options of commands, and where tasks have their contexts."""
