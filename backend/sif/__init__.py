"""SIF files: header and descriptors, OCI-SIF, and the texts that siftool prints of them."""
