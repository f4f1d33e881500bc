"""Decides. Pure: no asyncio, no I/O, no clock, no logging; the shell calls it and obeys."""
