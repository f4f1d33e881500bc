"""Desired state: YAML text in, frozen models or a list of findings out. Called by cli and controller."""
