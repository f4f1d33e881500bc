"""How a blank machine becomes a container: boot services, the installer, images. Called by `controller` and `cli`."""
