"""One small interface over hypervisors; `kvm` (virsh) and `xen` (xl) behind it. Commands and parsers only."""

from __future__ import annotations

from collections.abc import Mapping

from vcrecon.hypervisor.base import Hypervisor
from vcrecon.hypervisor.kvm import Kvm
from vcrecon.hypervisor.xen import Xen

HYPERVISORS: Mapping[str, Hypervisor] = {"kvm": Kvm(), "xen": Xen()}
"""By the name that containers.yaml gives."""
