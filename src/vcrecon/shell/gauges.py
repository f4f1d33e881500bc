"""The present state of every object, as metrics. Filled by `shell.metrics`, read at scrape time.

Plain dicts that one collector turns into samples, so an object has one series of a name by construction, and 10,000
guests cost nothing between two scrapes. A scrape may run in another thread: `list(dict.items())` is one step for the
interpreter. Times are Unix seconds, as Prometheus wants them; `time() - x` is an age.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

Samples = Iterable[tuple[tuple[str, ...], float]]
"""Label values, in the order of the family's labels, and the value."""

GAUGES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "vcrecon_site_info": (
        "The site that this controller looks after, its session (preparing or running), and the version. Always 1.",
        ("site", "session", "version"),
    ),
    "vcrecon_container_info": (
        "A container (physical host) and the state it was last seen in, or unknown. Always 1.",
        ("container", "state"),
    ),
    "vcrecon_container_state_timestamp_seconds": (
        "Since when the container has been in this state, in Unix seconds.",
        ("container",),
    ),
    "vcrecon_container_reachable": (
        "Whether the container answered when it was last asked (1) or not (0).",
        ("container",),
    ),
    "vcrecon_container_last_seen_timestamp_seconds": (
        "When the container last answered, in Unix seconds; 0 when it never did.",
        ("container",),
    ),
    "vcrecon_container_guests": (
        "Number of vcrecon's guests that were active on the container when it last showed them.",
        ("container",),
    ),
    "vcrecon_container_memory_bytes": (
        "Memory that the spec says the container has for guests, in bytes.",
        ("container",),
    ),
    "vcrecon_container_memory_used_bytes": (
        "Memory of the guests that were active on the container when it last showed them, in bytes.",
        ("container",),
    ),
    "vcrecon_container_pool_data_ratio": (
        "How full the data of the container's thin pool was when it was last seen, 0 to 1.",
        ("container",),
    ),
    "vcrecon_container_pool_metadata_ratio": (
        "How full the metadata of the container's thin pool was when it was last seen, 0 to 1.",
        ("container",),
    ),
    "vcrecon_container_last_error_timestamp_seconds": (
        "When something last failed on the container since the service started, in Unix seconds, and what kind of "
        "error it was: an action's, or why the container did not answer.",
        ("container", "error"),
    ),
    "vcrecon_install_progress_ratio": (
        "How far the install of a container is, 0 to 1, and its step. Only while it is installed.",
        ("container", "step"),
    ),
    "vcrecon_install_eta_seconds": (
        "Seconds until the install of a container ends, as estimated. Only while that can be estimated.",
        ("container",),
    ),
    "vcrecon_guest_info": (
        "A guest of the spec, its cluster, its container and the state it was last seen in, or unknown. Always 1.",
        ("guest", "cluster", "container", "state"),
    ),
    "vcrecon_guest_state_timestamp_seconds": (
        "Since when the guest has been in this state, in Unix seconds.",
        ("guest",),
    ),
    "vcrecon_cluster_guests": ("Number of guests that the spec gives the cluster.", ("cluster",)),
    "vcrecon_containers": ("Number of containers in each state.", ("state",)),
    "vcrecon_guests": ("Number of the spec's guests in each state.", ("state",)),
    "vcrecon_blocked": (
        "An object on which vcrecon cannot go on, and why. Always 1; gone when it goes on.",
        ("object", "reason"),
    ),
    "vcrecon_paused": ("An object that a person paused, or site. Always 1; gone when it is resumed.", ("object",)),
    "vcrecon_queue": (
        "Number of objects that wait for their turn (an install slot, an image transfer, a budget).",
        ("queue",),
    ),
    "vcrecon_actions_in_flight": ("Number of actions under way on hosts now.", ()),
}
COUNTERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "vcrecon_guest_restarts_total": (
        "Starts of a guest on a disk that had booted before: after it went down, was moved or was rescued.",
        ("guest", "cluster"),
    ),
    "vcrecon_guest_moves_total": (
        "Moves of a guest to another container, with its disk or, after a fence, onto a fresh one.",
        ("guest", "cluster"),
    ),
}


@dataclass(frozen=True, slots=True)
class ContainerFacts:
    """What a container showed when it was last seen. `pool_*` are 0 to 1, None without a thin pool."""

    last_seen_s: float = 0.0
    guests: int = 0
    memory_bytes: int = 0
    memory_used_bytes: int = 0
    pool_data: float | None = None
    pool_metadata: float | None = None


@dataclass(frozen=True, slots=True)
class Install:
    """How far an install is. `ratio` is 0 to 1; `eta_s` is None when unknown.

    `step` is the installer's, "wait" before its first word, or "boot" once it is done and the new system starts.
    """

    step: str
    ratio: float
    eta_s: float | None


class Objects(Collector):
    """The one collector; its owner fills the dicts."""

    def __init__(self, container_states: Sequence[str], guest_states: Sequence[str]) -> None:
        self.site: tuple[str, str, str] | None = None
        self.containers: dict[str, tuple[str, float]] = {}
        """State, and since when."""
        self.reachable: dict[str, bool] = {}
        self.facts: dict[str, ContainerFacts] = {}
        self.errors: dict[str, tuple[str, float]] = {}
        self.installs: dict[str, Install] = {}
        self.guests: dict[str, tuple[str, str, str, float]] = {}
        """Cluster, container, state, and since when."""
        self.restarts: dict[tuple[str, str], int] = {}
        """By guest and cluster, as `moves`."""
        self.moves: dict[tuple[str, str], int] = {}
        self.clusters: dict[str, int] = {}
        self.blocked: dict[str, str] = {}
        self.paused: frozenset[str] = frozenset()
        self.queues: dict[str, int] = {}
        self.in_flight = 0
        self._container_states = tuple(container_states)
        self._guest_states = tuple(guest_states)

    def describe(self) -> Iterable[Metric]:
        # Lets the registry check the names without collecting.
        return [_family(name) for name in (*GAUGES, *COUNTERS)]

    def collect(self) -> Iterator[Metric]:
        for name, samples in (*self._site(), *self._of_containers(), *self._of_guests()):
            family = _family(name)
            for labels, value in samples:
                family.add_metric(labels, value)
            yield family

    def _site(self) -> Iterator[tuple[str, Samples]]:
        yield "vcrecon_site_info", [(self.site, 1)] if self.site else []
        yield "vcrecon_cluster_guests", [((name,), number) for name, number in list(self.clusters.items())]
        yield "vcrecon_blocked", [(pair, 1) for pair in list(self.blocked.items())]
        yield "vcrecon_paused", [((name,), 1) for name in self.paused]
        yield "vcrecon_queue", [((queue,), length) for queue, length in list(self.queues.items())]
        yield "vcrecon_actions_in_flight", [((), self.in_flight)]

    def _of_containers(self) -> Iterator[tuple[str, Samples]]:
        states, facts = list(self.containers.items()), list(self.facts.items())
        yield "vcrecon_container_info", [((name, state), 1) for name, (state, _) in states]
        since = [((name,), since_s) for name, (_, since_s) in states if since_s]
        yield "vcrecon_container_state_timestamp_seconds", since
        yield "vcrecon_containers", _tally(self._container_states, (state for _, (state, _) in states))
        yield "vcrecon_container_reachable", [((name,), int(on)) for name, on in list(self.reachable.items())]
        yield "vcrecon_container_last_seen_timestamp_seconds", [((name,), f.last_seen_s) for name, f in facts]
        yield "vcrecon_container_guests", [((name,), f.guests) for name, f in facts]
        yield "vcrecon_container_memory_bytes", [((name,), f.memory_bytes) for name, f in facts]
        yield "vcrecon_container_memory_used_bytes", [((name,), f.memory_used_bytes) for name, f in facts]
        known = [(name, f.pool_data) for name, f in facts]
        yield "vcrecon_container_pool_data_ratio", [((name,), ratio) for name, ratio in known if ratio is not None]
        known = [(name, f.pool_metadata) for name, f in facts]
        yield "vcrecon_container_pool_metadata_ratio", [((name,), ratio) for name, ratio in known if ratio is not None]
        errors = [((name, error), at_s) for name, (error, at_s) in list(self.errors.items())]
        yield "vcrecon_container_last_error_timestamp_seconds", errors
        installs = list(self.installs.items())
        yield "vcrecon_install_progress_ratio", [((name, i.step), i.ratio) for name, i in installs]
        yield "vcrecon_install_eta_seconds", [((name,), i.eta_s) for name, i in installs if i.eta_s is not None]

    def _of_guests(self) -> Iterator[tuple[str, Samples]]:
        guests = list(self.guests.items())
        infos = [((name, cluster, place, state), 1) for name, (cluster, place, state, _) in guests]
        yield "vcrecon_guest_info", infos
        since = [((name,), since_s) for name, (_, _, _, since_s) in guests if since_s]
        yield "vcrecon_guest_state_timestamp_seconds", since
        yield "vcrecon_guests", _tally(self._guest_states, (state for _, (_, _, state, _) in guests))
        yield "vcrecon_guest_restarts_total", list(self.restarts.items())
        yield "vcrecon_guest_moves_total", list(self.moves.items())


def _family(name: str) -> GaugeMetricFamily | CounterMetricFamily:
    if name in COUNTERS:
        help_text, labels = COUNTERS[name]
        return CounterMetricFamily(name, help_text, labels=labels)
    help_text, labels = GAUGES[name]
    return GaugeMetricFamily(name, help_text, labels=labels)


def _tally(known: Sequence[str], states: Iterable[str]) -> Samples:
    """A sample for every known state, with zeros: a graph of a state must not vanish when it is empty."""
    tally = Tally(states)
    return [((state,), tally[state]) for state in dict.fromkeys((*known, *sorted(tally)))]
