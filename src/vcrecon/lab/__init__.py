"""The lab: virtual machines as containers, on one small box, so that vcrecon drives real Debian hosts.

Called by the command line only (`vcrecon lab …`); knows the spec and nothing of the code that drives hosts.

    recipes    what the images consist of
    images     builds them once, caches them by the digest of their recipe
    layout     names, addresses and files of a lab
    network    its network namespaces, bridges and taps
    vlan_port  a process that gives one namespace an untagged port on a VLAN of the trunk
    machine    a virtual machine: its disks, its QEMU, its power switch
    bind       a spec directory bound to the lab's machines
    lab        up, down and the list of what is there
    breakage   ways to break it
"""
