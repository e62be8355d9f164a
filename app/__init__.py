"""What a person starts: the command line in ``app.cli`` and the deck in ``app.deck``."""
