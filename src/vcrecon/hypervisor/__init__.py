"""One small interface over hypervisors; `kvm` (virsh) and `xen` (xl) behind it. Commands and parsers only."""
