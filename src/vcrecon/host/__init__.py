"""What runs on a container: stock commands as data, and pure parsers of what they print."""
