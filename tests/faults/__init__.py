"""The real transport and real host scripts against real OpenSSH servers, broken at seeded moments.

`python -m tests.faults --runs 200` makes many runs, `--seed N` makes one again. Each run is a process of its own in
network, mount and process namespaces of its own (`one`), so whatever it leaves goes with it; what it leaves while it
lives is counted. LVM, libvirt and Xen are not real here: the lab has those. A seed settles what is done, when and to
whom; processes and the kernel settle the rest, so two runs of one seed are alike, not the same.
"""
