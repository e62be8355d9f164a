"""The version, read by the build as well; importlib.metadata would cost 25 ms a start."""

__version__ = "0.1.0"
