"""Builders of Dockerfiles behind one Protocol: BuildKit, buildah, podman, docker."""
