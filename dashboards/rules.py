"""Recording rules and alerts, as values. Written to grafana/rules by `dashboards.files`.

The recorded series are what dashboards and alerts share: what a guest that "runs" on a silent host is, and what makes
a tile change its colour, is said once. They hold for one controller or for a master that was replaced by another.
"""

from __future__ import annotations

from dataclasses import dataclass

POOL_FULL = 0.85
"""Thin pools that are full stop guests; at this fill there is still time to act."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A recording rule; `meaning` is for docs/metrics.md."""

    name: str
    expr: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert. `hold` is how long it must last before it fires; its runbook section has its name."""

    name: str
    expr: str
    hold: str
    severity: str
    summary: str


RECORDED = (
    Recorded(
        "vcrecon:guest_running",
        '(max by (guest, cluster, container) (vcrecon_guest_info{state="running"})'
        " * on (container) group_left () max by (container) (vcrecon_container_reachable))"
        ' or (max by (guest, cluster, container) (vcrecon_guest_info{state!="running"}) * 0)',
        "1 for a guest that runs on a container that answers, else 0.",
    ),
    Recorded(
        "vcrecon:guest_blocked",
        'label_replace(max by (object, reason) (vcrecon_blocked{object=~"guest/.+"}),'
        ' "guest", "$1", "object", "guest/(.+)")'
        " * on (guest) group_left (cluster, container) max by (guest, cluster, container) (vcrecon_guest_info)",
        "1 for a guest that is blocked, with its reason, cluster and container.",
    ),
    Recorded(
        "vcrecon:container_blocked",
        'label_replace(max by (object, reason) (vcrecon_blocked{object=~"(container|image)/.+"}),'
        ' "container", "$2", "object", "(container|image)/([^/]+).*")',
        "1 for a container that is blocked, or an image that it cannot get, with the reason.",
    ),
    Recorded(
        "vcrecon:container_down",
        "max by (container) (vcrecon_container_reachable) == 0"
        ' unless on (container) max by (container) (vcrecon_container_info{state=~"pxe|installing"})',
        "Present for a container that should answer and does not. One that waits for its install is not down.",
    ),
    Recorded(
        "vcrecon:container_health",
        "(count by (container) (vcrecon:container_blocked) * 0 + 2)"
        " or (max by (container) (vcrecon:container_down) * 0 + 2)"
        ' or (max by (container) (vcrecon_container_info{state!="vlan-ready"}) * 0 + 1)'
        " or (max by (container) (vcrecon_container_info) * 0)",
        "0 ready, 1 being made ready, 2 needs help: down or blocked.",
    ),
    Recorded(
        "vcrecon:cluster_health",
        '(count by (cluster) (vcrecon:guest_blocked{cluster!=""}) * 0 + 2)'
        ' or (count by (cluster) (max by (cluster, guest, container) (vcrecon_guest_info{cluster!=""})'
        " and on (container) vcrecon:container_down) * 0 + 2)"
        " or ((max by (cluster) (vcrecon_cluster_guests)"
        " > on (cluster) sum by (cluster) (vcrecon:guest_running)) * 0 + 1)"
        " or (max by (cluster) (vcrecon_cluster_guests) * 0)",
        "0 every guest runs, 1 some do not and vcrecon works on it, 2 needs help: one is blocked or out of sight.",
    ),
    Recorded(
        "vcrecon:site_health",
        "(absent(vcrecon_converged) * 0 + 3)"
        " or (count(vcrecon_blocked) * 0 + 2) or (count(vcrecon:container_down) * 0 + 2)"
        " or ((max(vcrecon_frozen) == 1) * 0 + 2) or ((max(vcrecon_spec_valid) == 0) * 0 + 2)"
        " or ((max(min_over_time(vcrecon_record_writable[45s])) == 0) * 0 + 2)"
        " or (count(vcrecon_paused) * 0 + 1) or (1 - max(vcrecon_converged))",
        "0 ready, 1 working or something is paused, 2 needs help, 3 no word from the controller.",
    ),
)

ALERTS = (
    Alert(
        "VcreconControllerDown",
        'absent(up{job="vcrecon"} == 1)',
        "1m",
        "critical",
        "vcrecon does not answer: nothing is healed and nothing is known.",
    ),
    Alert(
        "VcreconContainerDown",
        "vcrecon:container_down",
        "2m",
        "critical",
        "Container {{ $labels.container }} does not answer.",
    ),
    Alert(
        "VcreconContainerBlocked",
        "vcrecon:container_blocked unless on (container) vcrecon:container_down",
        "5m",
        "warning",
        "Container {{ $labels.container }} is blocked: {{ $labels.reason }}.",
    ),
    Alert(
        "VcreconGuestBlocked",
        'vcrecon:guest_blocked{reason!="crash-loop"}',
        "5m",
        "warning",
        "Guest {{ $labels.guest }} is blocked: {{ $labels.reason }}.",
    ),
    Alert(
        "VcreconCrashLoop",
        "sum by (guest, cluster) (increase(vcrecon_guest_restarts_total[15m])) >= 3",
        "0s",
        "warning",
        "Guest {{ $labels.guest }} went down and was started {{ $value | humanize }} times within 15 minutes.",
    ),
    Alert(
        "VcreconNotConverged",
        "max(vcrecon_converged) == 0",
        "30m",
        "warning",
        "The site has not been as the spec wants it for half an hour.",
    ),
    Alert(
        "VcreconSpecInvalid",
        "max(vcrecon_spec_valid) == 0",
        "1m",
        "warning",
        "The spec files on disk are not valid; the last good ones stay in force.",
    ),
    Alert(
        "VcreconSiteFrozen",
        "max(vcrecon_frozen) == 1",
        "0s",
        "critical",
        "Many containers stopped answering at once: moves and reinstalls are frozen.",
    ),
    Alert(
        "VcreconPoolNearlyFull",
        f'label_replace(max by (container) (vcrecon_container_pool_data_ratio) > {POOL_FULL}, "part", "data", "", "")'
        f" or label_replace(max by (container) (vcrecon_container_pool_metadata_ratio) > {POOL_FULL},"
        ' "part", "metadata", "", "")',
        "5m",
        "warning",
        "The thin pool of {{ $labels.container }} is {{ $value | humanizePercentage }} full ({{ $labels.part }}).",
    ),
    Alert(
        "VcreconInstallQueueStuck",
        'max(vcrecon_queue{queue="installs"}) > 0'
        ' and on () sum(increase(vcrecon_actions_total{action="install"}[20m])) == 0',
        "10m",
        "warning",
        "Containers wait for an install slot, and no install has ended for 20 minutes.",
    ),
    Alert(
        "VcreconRecordNotWritable",
        "max(min_over_time(vcrecon_record_writable[45s])) == 0",
        "1m",
        "critical",
        "The record cannot be written: vcrecon looks on and begins nothing.",
    ),
)
