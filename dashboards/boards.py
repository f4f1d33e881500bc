"""The four dashboards. Times on them are of the chosen range, unless a panel says that it counts since the start."""

from __future__ import annotations

from typing import Any

from dashboards.model import AMBER, BLUE, GREY, HEALTH, VERMILION, Board, Panel, Query
from dashboards.rules import POOL_FULL

FILL = ((0, BLUE), (0.7, AMBER), (POOL_FULL, VERMILION))
NOTHING_BLOCKED = "nothing is blocked"
YES_NO = {0: ("no", VERMILION), 1: ("yes", BLUE)}


def quantile(share: float, metric: str, window: str, by: str = "") -> str:
    """A quantile of a histogram over a window, by one label or none."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({metric}_bucket[{window}])))"


def number(title: str, description: str, expr: str, legend: str = "", **more: Any) -> Panel:
    """A large figure, a quarter of the width or less."""
    return Panel(title, description, "number", (Query(expr, legend),), **{"width": 4, "height": 5, **more})


SITE = Board(
    "vcrecon-site",
    "vcrecon: site",
    "Are we ready? What is blocked, and why?",
    (
        number(
            "Are we ready?",
            "ready: everything is as the spec wants it. working: vcrecon is busy, or something is paused. help: "
            "something is blocked, down or frozen, the spec is invalid or the record cannot be written; look below. "
            "no word: the controller does not answer.",
            "max(vcrecon:site_health)",
            words={**HEALTH, 3: ("no word", GREY)},
            width=6,
        ),
        number(
            "Guests running",
            "Guests that run on containers that answer.",
            "sum(vcrecon:guest_running) or vector(0)",
            width=3,
        ),
        number(
            "Guests in the spec",
            "Guests in the spec.",
            "count(max by (guest) (vcrecon_guest_info)) or vector(0)",
            width=3,
        ),
        number(
            "Containers ready",
            "Containers that answer, are not blocked and have every network of their guests.",
            "count(vcrecon:container_health == 0) or vector(0)",
            width=3,
        ),
        number(
            "Containers in the spec",
            "Containers in the spec.",
            "count(max by (container) (vcrecon_container_info)) or vector(0)",
            width=3,
        ),
        number("Under way", "Actions that run on hosts now.", "sum(vcrecon_actions_in_flight)", width=3),
        number(
            "Site",
            "Name of the site, and whether the class prepares or runs.",
            "max by (site, session) (vcrecon_site_info)",
            "{{site}}: {{session}}",
            width=3,
            names=True,
        ),
        number(
            "Spec",
            "Whether the spec files on disk are valid. While they are not, the last good ones stay in force.",
            "max(vcrecon_spec_valid)",
            words={0: ("INVALID", VERMILION), 1: ("valid", BLUE)},
        ),
        number(
            "Generation", "Spec generations taken into force since the service started.", "max(vcrecon_spec_generation)"
        ),
        number(
            "Frozen",
            "Moves and reinstalls are frozen when many containers stop answering at once.",
            "max(vcrecon_frozen)",
            words={0: ("no", BLUE), 1: ("FROZEN", VERMILION)},
        ),
        number(
            "Converged",
            "Whether every object is as the spec wants it.",
            "max(vcrecon_converged)",
            words={0: ("not yet", AMBER), 1: ("yes", BLUE)},
        ),
        number(
            "Healed",
            "Guests that went down and run again, in the range.",
            "round(sum(increase(vcrecon_heal_seconds_count[$__range])))",
        ),
        number(
            "Moved by itself",
            "Changes that vcrecon did not make: guests that died, hosts that were changed by hand; in the range.",
            "round(sum(increase(vcrecon_jumps_total[$__range])))",
        ),
        Panel(
            "Blocked, and why",
            "What vcrecon cannot go on with. docs/troubleshooting.md says for each reason what to type; "
            "`vcrecon status` has the whole sentence.",
            "table",
            (Query("max by (object, reason) (vcrecon_blocked)"),),
            labels={"object": "object", "reason": "reason"},
            empty=NOTHING_BLOCKED,
        ),
        Panel(
            "Alerts",
            "Alerts that fire now. docs/runbook.md has a section for each.",
            "table",
            (Query('max by (alertname, severity, container, guest, reason) (ALERTS{alertstate="firing"})'),),
            labels={
                "alertname": "alert",
                "severity": "severity",
                "container": "container",
                "guest": "guest",
                "reason": "reason",
            },
            empty="nothing is wrong",
        ),
        Panel(
            "Guests by state",
            "Guests of the spec in each state, as they were last seen.",
            "graph",
            (Query("sum by (state) (vcrecon_guests)", "{{state}}"),),
            stacked=True,
        ),
        Panel(
            "Containers by state",
            "Containers in each state, as they were last seen.",
            "graph",
            (Query("sum by (state) (vcrecon_containers)", "{{state}}"),),
            stacked=True,
        ),
        Panel(
            "Queue",
            "Objects that wait for their turn: a slot, a transfer, a budget.",
            "graph",
            (Query("sum by (queue) (vcrecon_queue)", "{{queue}}"),),
            width=8,
        ),
        Panel(
            "Changes of state",
            "Changes of state each second, of containers and guests.",
            "graph",
            (Query("sum by (kind) (rate(vcrecon_transitions_total[$__rate_interval]))", "{{kind}}"),),
            width=8,
        ),
        Panel(
            "Paused",
            "What people paused: vcrecon keeps its hands off until `vcrecon resume`.",
            "table",
            (Query("max by (object) (vcrecon_paused)"),),
            width=8,
            labels={"object": "object"},
            empty="nothing is paused",
        ),
        Panel(
            "Time to heal",
            "From the sight of a guest that is down until it runs again, in the range.",
            "number",
            (
                Query(quantile(0.5, "vcrecon_heal_seconds", "$__range"), "half within"),
                Query(quantile(0.95, "vcrecon_heal_seconds", "$__range"), "95 % within"),
            ),
            width=6,
            height=5,
            unit="s",
            empty="nothing was healed in the range",
        ),
        Panel(
            "Time to converge",
            "From a new spec generation until everything is as it wants, on average in the range.",
            "number",
            (
                Query(
                    "sum(increase(vcrecon_converge_seconds_sum[$__range]))"
                    " / sum(increase(vcrecon_converge_seconds_count[$__range]))",
                    "average",
                ),
                Query(quantile(0.95, "vcrecon_converge_seconds", "$__range"), "95 % within"),
            ),
            width=6,
            height=5,
            unit="s",
            empty="no generation converged in the range",
        ),
        Panel(
            "Failures by action",
            "Actions that failed in the range.",
            "table",
            (
                Query(
                    'round(sum by (action) (increase(vcrecon_actions_total{result="failed"}[$__range]))) > 0',
                    "failures",
                ),
            ),
            width=6,
            height=5,
            labels={"action": "action"},
            empty="nothing failed in the range",
        ),
        Panel(
            "Failures by error",
            "Actions that failed since the service started, by kind of error.",
            "table",
            (Query("sum by (action, error) (vcrecon_action_failures_total)", "failures"),),
            width=6,
            height=5,
            labels={"action": "action", "error": "error"},
            empty="nothing failed since the service started",
        ),
    ),
)

_C = 'container=~"$container"'

CONTAINERS = Board(
    "vcrecon-containers",
    "vcrecon: containers",
    "Every physical host in one row.",
    (
        Panel(
            "Containers",
            "ready: answers and has every network of its guests. working: is being made ready. help: "
            "does not answer, or is blocked.",
            "tiles",
            (Query(f"vcrecon:container_health{{{_C}}}", "{{container}}"),),
            width=24,
            height=7,
            words=HEALTH,
            link=("vcrecon-containers", "container"),
        ),
        Panel(
            "One row each",
            "State, whether it answers, time in the state, guests, memory given to them, thin pool, and the last thing "
            "that failed there since the service started. Pool and guests are as last seen.",
            "table",
            (
                Query(f"max by (container, state) (vcrecon_container_info{{{_C}}})"),
                Query(f"max by (container) (vcrecon_container_reachable{{{_C}}})", "answers", words=YES_NO),
                Query(
                    f"time() - max by (container) (vcrecon_container_state_timestamp_seconds{{{_C}}})",
                    "in this state",
                    "s",
                ),
                Query(f"max by (container) (vcrecon_container_guests{{{_C}}})", "guests"),
                Query(
                    f"max by (container) (vcrecon_container_memory_used_bytes{{{_C}}})"
                    f" / (max by (container) (vcrecon_container_memory_bytes{{{_C}}}) > 0)",
                    "memory",
                    "percentunit",
                ),
                Query(f"max by (container) (vcrecon_container_pool_data_ratio{{{_C}}})", "pool data", "percentunit"),
                Query(
                    f"max by (container) (vcrecon_container_pool_metadata_ratio{{{_C}}})",
                    "pool metadata",
                    "percentunit",
                ),
                Query(
                    f"time() - (max by (container) (vcrecon_container_last_seen_timestamp_seconds{{{_C}}}) > 0)",
                    "last seen",
                    "s",
                ),
                Query(
                    f"time() - max by (container, error) (vcrecon_container_last_error_timestamp_seconds{{{_C}}})",
                    "failed ago",
                    "s",
                ),
            ),
            width=24,
            height=14,
            labels={"container": "container", "state": "state", "error": "last error"},
        ),
        Panel(
            "Blocked containers",
            "Containers, and images on them, with which vcrecon cannot go on.",
            "table",
            (Query(f"max by (container, object, reason) (vcrecon:container_blocked{{{_C}}})"),),
            labels={"container": "container", "object": "object", "reason": "reason"},
            empty=NOTHING_BLOCKED,
        ),
        Panel(
            "Installs",
            "How far each install is. `wait`: the installer has not said a word yet; `boot`: it is done, and the new "
            "system starts.",
            "table",
            (
                Query(f"max by (container, step) (vcrecon_install_progress_ratio{{{_C}}})", "done", "percentunit"),
                Query(f"max by (container) (vcrecon_install_eta_seconds{{{_C}}})", "time left", "s"),
            ),
            labels={"container": "container", "step": "step"},
            empty="no container is being installed",
        ),
        Panel(
            "Pool data",
            "How full the data of each thin pool is.",
            "graph",
            (Query(f"max by (container) (vcrecon_container_pool_data_ratio{{{_C}}})", "{{container}}"),),
            width=8,
            unit="percentunit",
            steps=FILL,
        ),
        Panel(
            "Pool metadata",
            "How full the metadata of each thin pool is: at 100 % the pool stops, however much data space is left.",
            "graph",
            (Query(f"max by (container) (vcrecon_container_pool_metadata_ratio{{{_C}}})", "{{container}}"),),
            width=8,
            unit="percentunit",
            steps=FILL,
        ),
        Panel(
            "Memory of guests",
            "Memory of the guests that run on each container.",
            "graph",
            (Query(f"max by (container) (vcrecon_container_memory_used_bytes{{{_C}}})", "{{container}}"),),
            width=8,
            unit="bytes",
        ),
        Panel(
            "Time of an install, by step",
            "Average duration of each step of an installer since the service started.",
            "table",
            (
                Query(
                    "sum by (step) (vcrecon_install_step_seconds_sum) / sum by (step)"
                    " (vcrecon_install_step_seconds_count)",
                    "seconds",
                    "s",
                ),
            ),
            width=24,
            height=6,
            labels={"step": "step"},
            empty="no install has ended since the service started",
        ),
    ),
    variable=("container", "vcrecon_container_info"),
)

_K = 'cluster=~"$cluster"'

CLUSTERS = Board(
    "vcrecon-clusters",
    "vcrecon: clusters",
    "A tile for each group; click it for its guests.",
    (
        number(
            "Clusters ready",
            "Every guest of them runs.",
            "count(vcrecon:cluster_health == 0) or vector(0)",
            width=8,
            height=4,
        ),
        number(
            "Clusters working",
            "Some guests do not run yet, and vcrecon works on it.",
            "count(vcrecon:cluster_health == 1) or vector(0)",
            width=8,
            height=4,
            steps=((0, BLUE), (1, AMBER)),
        ),
        number(
            "Clusters that need help",
            "A guest is blocked, or on a container that does not answer.",
            "count(vcrecon:cluster_health == 2) or vector(0)",
            width=8,
            height=4,
            steps=((0, BLUE), (1, VERMILION)),
        ),
        Panel(
            "Clusters",
            "ready: all its guests run. working: some do not, and vcrecon works on it. help: a guest is "
            "blocked or out of sight. Click a tile for its guests.",
            "tiles",
            (Query("vcrecon:cluster_health", "{{cluster}}"),),
            width=24,
            height=14,
            words=HEALTH,
            link=("vcrecon-clusters", "cluster"),
            empty="the spec has no clusters",
        ),
        Panel(
            "Guests of the chosen clusters",
            "Restarts and moves are those in the range. A guest on a container that does not answer has the state it "
            "was last seen in, and does not count as running.",
            "table",
            (
                Query(f"max by (guest, cluster, container, state) (vcrecon_guest_info{{{_K}}})"),
                Query(f"max by (guest) (vcrecon:guest_running{{{_K}}})", "runs", words=YES_NO),
                Query(
                    "time() - (max by (guest) (vcrecon_guest_state_timestamp_seconds)"
                    f" and on (guest) vcrecon_guest_info{{{_K}}})",
                    "in this state",
                    "s",
                ),
                Query(f"round(sum by (guest) (increase(vcrecon_guest_restarts_total{{{_K}}}[$__range])))", "restarts"),
                Query(f"round(sum by (guest) (increase(vcrecon_guest_moves_total{{{_K}}}[$__range])))", "moves"),
                Query(f"max by (guest, reason) (vcrecon:guest_blocked{{{_K}}})"),
            ),
            width=24,
            height=12,
            labels={
                "guest": "guest",
                "cluster": "cluster",
                "container": "container",
                "state": "state",
                "reason": "blocked",
            },
            empty="the spec has no clusters",
        ),
        Panel(
            "Guests that run",
            "Guests of each chosen cluster that run on a container that answers.",
            "graph",
            (Query(f"sum by (cluster) (vcrecon:guest_running{{{_K}}})", "{{cluster}}"),),
            width=12,
            empty="the spec has no clusters",
        ),
        Panel(
            "Restarts",
            "Starts of guests on disks that had booted before, in the range, by cluster.",
            "table",
            (
                Query(
                    'round(sum by (cluster) (increase(vcrecon_guest_restarts_total{cluster!=""}[$__range]))) > 0',
                    "restarts",
                ),
            ),
            width=6,
            labels={"cluster": "cluster"},
            empty="nothing was restarted in the range",
        ),
        Panel(
            "Moves",
            "Moves of guests to other containers, in the range, by cluster.",
            "table",
            (
                Query(
                    'round(sum by (cluster) (increase(vcrecon_guest_moves_total{cluster!=""}[$__range]))) > 0', "moves"
                ),
            ),
            width=6,
            labels={"cluster": "cluster"},
            empty="nothing was moved in the range",
        ),
        Panel(
            "Guests without a cluster",
            "Guests that belong to no cluster, such as an instructor's.",
            "table",
            (
                Query('max by (guest, container, state) (vcrecon_guest_info{cluster=""})'),
                Query('max by (guest) (vcrecon:guest_running{cluster=""})', "runs", words=YES_NO),
            ),
            width=24,
            height=6,
            labels={"guest": "guest", "container": "container", "state": "state"},
            empty="every guest of the spec belongs to a cluster",
        ),
    ),
    variable=("cluster", "vcrecon_cluster_guests"),
)

_RATE = "$__rate_interval"

CONTROLLER = Board(
    "vcrecon-controller",
    "vcrecon: controller",
    "How the service itself does.",
    (
        number(
            "Up",
            "Whether Prometheus reaches the service.",
            'max(up{job="vcrecon"})',
            words={0: ("DOWN", VERMILION), 1: ("up", BLUE)},
        ),
        number("Version", "The version that runs.", "max by (version) (vcrecon_site_info)", "{{version}}", names=True),
        number(
            "Running for",
            "Time since the service started; counters begin anew then.",
            'time() - max(process_start_time_seconds{job="vcrecon"})',
            unit="s",
        ),
        number(
            "Record",
            "Whether its record on disk could be written of late. If not, nothing is begun, and states are as they "
            "were before.",
            "max(min_over_time(vcrecon_record_writable[45s]))",
            words={0: ("NOT WRITABLE", VERMILION), 1: ("in order", BLUE)},
        ),
        number(
            "Open files",
            "Open files and sockets; about two for each container.",
            'max(process_open_fds{job="vcrecon"})',
        ),
        number("Open files at most", "The limit of open files.", 'max(process_max_fds{job="vcrecon"})'),
        Panel(
            "Time of a pass",
            "One pass over a container: look, remember, plan.",
            "graph",
            (
                Query(quantile(0.5, "vcrecon_pass_seconds", _RATE), "half within"),
                Query(quantile(0.95, "vcrecon_pass_seconds", _RATE), "95 % within"),
            ),
            unit="s",
        ),
        Panel(
            "Passes",
            "Passes over containers each second.",
            "graph",
            (Query(f"sum(rate(vcrecon_pass_seconds_count[{_RATE}]))", "passes"),),
            unit="ops",
        ),
        Panel(
            "Calls over SSH",
            "Round trips to hosts each second: connect (log in), look, hypervisor (questions to the "
            "resident virsh), step (of an action).",
            "graph",
            (Query(f"sum by (call) (rate(vcrecon_ssh_seconds_count[{_RATE}]))", "{{call}}"),),
            unit="ops",
        ),
        Panel(
            "Time of a call over SSH",
            "Within which 95 % of the round trips to hosts end.",
            "graph",
            (Query(quantile(0.95, "vcrecon_ssh_seconds", _RATE, "call"), "{{call}}"),),
            unit="s",
        ),
        Panel(
            "Event lag",
            "From a hypervisor's word that a guest changed to the end of the pass that it woke.",
            "graph",
            (Query(quantile(0.95, "vcrecon_event_lag_seconds", _RATE), "95 % within"),),
            width=8,
            unit="s",
            empty="no hypervisor told of a change",
        ),
        Panel(
            "Loop lag",
            "How late the service's event loop runs. Above some tenths of a second everything is late.",
            "graph",
            (Query(quantile(0.95, "vcrecon_loop_lag_seconds", _RATE), "95 % within"),),
            width=8,
            unit="s",
            steps=((0, BLUE), (0.25, AMBER), (1, VERMILION)),
        ),
        Panel(
            "Retries",
            "Actions begun again after a failure, each second.",
            "graph",
            (Query(f"sum(rate(vcrecon_retries_total[{_RATE}]))", "retries"),),
            width=8,
            unit="ops",
        ),
        Panel(
            "CPU",
            "Cores that the service uses.",
            "graph",
            (Query(f'sum(rate(process_cpu_seconds_total{{job="vcrecon"}}[{_RATE}]))', "cores"),),
            width=8,
        ),
        Panel(
            "Memory",
            "Resident memory of the service.",
            "graph",
            (Query('max(process_resident_memory_bytes{job="vcrecon"})', "resident"),),
            width=8,
            unit="bytes",
        ),
        Panel(
            "Scrapes",
            "Series that the service exports, and how long a scrape takes.",
            "graph",
            (
                Query('max(scrape_samples_scraped{job="vcrecon"})', "series"),
                Query('max(scrape_duration_seconds{job="vcrecon"}) * 1000', "milliseconds"),
            ),
            width=8,
        ),
        Panel(
            "Time of an action",
            "Within which 95 % of the actions of a kind end, failed ones too; in the range.",
            "table",
            (
                Query(quantile(0.95, "vcrecon_action_seconds", "$__range", "action") + " >= 0", "95 % within", "s"),
                Query("sum by (action) (increase(vcrecon_actions_total[$__range])) > 0", "number"),
            ),
            width=24,
            labels={"action": "action"},
            empty="nothing was done in the range",
        ),
    ),
)

BOARDS = (SITE, CONTAINERS, CLUSTERS, CONTROLLER)
