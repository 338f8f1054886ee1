"""The version, in a module of its own: another distribution may have overwritten the package's `__init__`."""

__version__ = "0.1.0"
