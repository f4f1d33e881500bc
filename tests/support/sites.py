"""Metrics of sites of any size, without hosts: what the service would export for a site that is well."""

from __future__ import annotations

from benchmarks.planner import build_spec

from vcrecon.service import site_metrics
from vcrecon.shell.gauges import ContainerFacts
from vcrecon.shell.metrics import Metrics


def metrics_of(containers: int, clusters: int) -> Metrics:
    """`clusters` of five guests each, with every series that a site's objects have. Times are Unix second 1."""
    spec = build_spec(containers, clusters)
    metrics = site_metrics()
    members = {name: cluster.guests for name, cluster in spec.clusters.items()}
    metrics.announce(("bench", "running", "1"), spec.containers, members, spec.placement)
    for name in spec.containers:
        metrics.set_container(name, "vlan-ready", 1.0)
        metrics.set_reachable(name, True)
        metrics.set_facts(name, ContainerFacts(1.0, 10, 64, 10, 0.2, 0.05))
        metrics.set_last_error(name, "timeout", 1.0)
    for guest, place in spec.placement.items():
        metrics.set_guest(guest, spec.guests[guest].cluster or "", place, "running", 1.0)
    metrics.set_converged(True)
    metrics.set_spec(valid=True, generation=1)
    metrics.set_record_writable(True)
    return metrics
