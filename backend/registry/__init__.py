"""Registries: the distribution API, its challenges and tokens, and where credentials are kept."""
