"""Questions that the deck asks: one modal screen per module."""
