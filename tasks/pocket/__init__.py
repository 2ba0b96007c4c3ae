"""Questions about small made-up worlds as `ape_pocket_*` tasks, for the model that the package ships."""
