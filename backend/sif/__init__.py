"""SIF files: the format, OCI-SIF and native images in it, and the texts of ``sifdeck sif``."""
