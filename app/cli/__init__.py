"""The command line: one module per verb, found by name and imported when it is typed."""
