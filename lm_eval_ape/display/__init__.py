"""How text of others, figures and progress are made fit to be shown."""
