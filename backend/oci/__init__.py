"""The OCI image specification 1.1 as values: digests, descriptors, manifests, indexes, configs."""
