"""vcrecon: turns a rack of plain servers into virtual clusters and keeps them alive."""

from importlib.metadata import version

__version__ = version("vcrecon")
