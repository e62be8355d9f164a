"""Labs: the file, the checks, the progress."""
