"""The deck's views: one screen per module."""
