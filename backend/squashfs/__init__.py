"""squashfs 4.0: a streaming writer and a reader, both without a mount."""
