"""Layers: tar streams, whiteouts, and squashing many layers into one tree."""
