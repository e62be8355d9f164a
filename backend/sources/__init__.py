"""Images that are not in a registry: layouts, archives, a Docker daemon, files on the web."""
