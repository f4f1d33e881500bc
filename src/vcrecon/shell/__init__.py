"""Touches the world for the core: SSH, the record, metrics, the log. Never decides."""
