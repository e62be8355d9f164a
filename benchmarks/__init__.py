"""Scripts that measure sifdeck beside its peers; run by hand, never a test."""
