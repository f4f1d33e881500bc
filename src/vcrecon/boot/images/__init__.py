"""System and guest images: built from Debian packages, captured from a running host, listed, verified and pruned.

An image is `NAME.tar.zst` with `NAME.json` beside it that says what is in it. Called by `cli.image`.
"""
