"""Makes a folder that can be handed in from finished runs."""
