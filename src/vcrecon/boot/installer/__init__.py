"""The installer that a blank machine boots: shell scripts in `ramfs`, and what makes an initramfs of them.

The scripts run on the machine; nothing here is run by the controller. Called by `cli.image`.
"""
