"""A simulated site: real SSH servers on loopback whose hosts answer the commands a Debian host would.

Imports nothing that sends those commands: what it knows about LVM, nftables or virsh it knows by itself.
"""
