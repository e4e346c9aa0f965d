"""Recipes: what a run is (schema), where it comes from (load, presets, from_env). No torch."""
