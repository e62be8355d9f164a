"""What the deck shows: one Textual widget per module, given values, posting messages."""
