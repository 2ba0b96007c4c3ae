"""How text of others and figures are made fit to be shown."""
