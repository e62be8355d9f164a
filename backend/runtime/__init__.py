"""Containers without root: namespaces and mounts, ids, config.json, and crun or runc."""
