"""The metrics of a running controller, under the names that design section 8 fixes. Called by `controller`.

Counters and histograms are prometheus_client's own. What describes the present state of objects is kept in
plain dicts and turned into samples at scrape time by one collector, so an object has one series by
construction, and 10,000 guests cost nothing between two scrapes. Count after the fact is recorded.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Sequence

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

# Seconds. A pass takes milliseconds, a guest minutes, an installation of a host half an hour.
PASS_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
ACTION_BUCKETS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0)
RECOVERY_BUCKETS_S = (1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)


class _Objects(Collector):
    """The present state of every object, as gauges."""

    def __init__(self, container_states: Sequence[str], guest_states: Sequence[str]) -> None:
        self.containers: dict[str, str] = {}
        self.reachable: dict[str, bool] = {}
        self.guests: dict[str, tuple[str, str, str]] = {}
        self.blocked: dict[str, str] = {}
        self.queues: dict[str, int] = {}
        self._container_states = tuple(container_states)
        self._guest_states = tuple(guest_states)

    def describe(self) -> Iterable[Metric]:
        # Lets the registry check the names without collecting.
        return [self._family(name) for name in _HELP]

    def collect(self) -> Iterator[Metric]:
        # list(dict.items()) is one step for the interpreter, so a scrape may run in another thread.
        containers, guests = list(self.containers.items()), list(self.guests.items())
        family = self._family("vcrecon_container_info")
        for container, state in containers:
            family.add_metric((container, state), 1)
        yield family
        family = self._family("vcrecon_guest_info")
        for guest, (cluster, container, state) in guests:
            family.add_metric((guest, cluster, container, state), 1)
        yield family
        container_tally = Tally(state for _, state in containers)
        yield self._tally("vcrecon_containers", self._container_states, container_tally)
        guest_tally = Tally(state for _, (_, _, state) in guests)
        yield self._tally("vcrecon_guests", self._guest_states, guest_tally)
        family = self._family("vcrecon_container_reachable")
        for container, reachable in list(self.reachable.items()):
            family.add_metric((container,), int(reachable))
        yield family
        family = self._family("vcrecon_blocked")
        for name, reason in list(self.blocked.items()):
            family.add_metric((name, reason), 1)
        yield family
        family = self._family("vcrecon_queue")
        for queue, length in list(self.queues.items()):
            family.add_metric((queue,), length)
        yield family

    @staticmethod
    def _family(name: str) -> GaugeMetricFamily:
        help_text, labels = _HELP[name]
        return GaugeMetricFamily(name, help_text, labels=labels)

    def _tally(self, name: str, known: Sequence[str], tally: Tally[str]) -> GaugeMetricFamily:
        """A series for every known state, with zeros: a graph of a state must not vanish when it is empty."""
        family = self._family(name)
        for state in dict.fromkeys((*known, *sorted(tally))):
            family.add_metric((state,), tally[state])
        return family


_HELP: dict[str, tuple[str, tuple[str, ...]]] = {
    "vcrecon_container_info": (
        "A container (physical host) and the state it was last seen in. Always 1.",
        ("container", "state"),
    ),
    "vcrecon_guest_info": (
        "A guest, its cluster, its container and the state it was last seen in. Always 1.",
        ("guest", "cluster", "container", "state"),
    ),
    "vcrecon_containers": ("Number of containers in each state.", ("state",)),
    "vcrecon_guests": ("Number of guests in each state.", ("state",)),
    "vcrecon_container_reachable": (
        "Whether the container answered when it was last asked (1) or not (0).",
        ("container",),
    ),
    "vcrecon_blocked": (
        "An object on which vcrecon cannot go on, and why. Always 1; gone when it goes on.",
        ("object", "reason"),
    ),
    "vcrecon_queue": (
        "Number of objects that wait for their turn (an install slot, an image transfer, a budget).",
        ("queue",),
    ),
}


class Metrics:
    """All metrics of one controller, in a registry of their own.

    `container_states` and `guest_states` name the states that are reported even when no object is in them.
    """

    def __init__(self, *, container_states: Sequence[str] = (), guest_states: Sequence[str] = ()) -> None:
        # prometheus_client offers this for the process only: without it each counter and histogram has a
        # `_created` twin, which no graph of ours uses.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call,unused-ignore]
        self.registry = CollectorRegistry(auto_describe=True)
        self._objects = _Objects(container_states, guest_states)
        self.registry.register(self._objects)
        ProcessCollector(registry=self.registry)
        self._make_counters()
        self._make_histograms()
        self._converged = self._gauge("converged", "Whether every object is as the spec wants it (1) or not (0).")
        self._spec_valid = self._gauge(
            "spec_valid",
            "Whether the spec files on disk are valid (1); at 0 the last good ones stay in force.",
        )
        self._spec_generation = self._gauge(
            "spec_generation", "Number of spec generations taken into force since the service started."
        )
        self._frozen = self._gauge(
            "frozen", "Whether moves and reinstalls are frozen (1), as when many containers vanish at once."
        )

    def _gauge(self, name: str, help_text: str) -> Gauge:
        return Gauge(f"vcrecon_{name}", help_text, registry=self.registry)

    def _make_counters(self) -> None:
        def counter(name: str, help_text: str, *labels: str) -> Counter:
            return Counter(f"vcrecon_{name}", help_text, labels, registry=self.registry)

        self._transitions = counter(
            "transitions_total",
            "Changes of state seen, by kind of object (container or guest).",
            "kind",
            "from_state",
            "to_state",
        )
        self._jumps = counter(
            "jumps_total",
            "Changes of state that no edge of the life cycle explains: reality moved by itself.",
        )
        self._failures = counter(
            "action_failures_total", "Actions that failed, by action and kind of error.", "action", "error"
        )
        self._retries = counter(
            "retries_total", "Calls within an action that were made again after a failure.", "action"
        )

    def _make_histograms(self) -> None:
        def histogram(name: str, help_text: str, buckets: Sequence[float], *labels: str) -> Histogram:
            return Histogram(f"vcrecon_{name}", help_text, labels, registry=self.registry, buckets=buckets)

        self._passes = histogram(
            "pass_seconds",
            "Duration of one pass over a container, from observation to record, in seconds.",
            PASS_BUCKETS_S,
        )
        self._actions = histogram(
            "action_seconds", "Duration of an action on a host, in seconds.", ACTION_BUCKETS_S, "action"
        )
        self._install_steps = histogram(
            "install_step_seconds",
            "Duration of a step of a container's installer, in seconds.",
            ACTION_BUCKETS_S,
            "step",
        )
        self._converging = histogram(
            "converge_seconds",
            "Time from a new spec generation until every object is as it wants, in seconds.",
            RECOVERY_BUCKETS_S,
        )
        self._healing = histogram(
            "heal_seconds",
            "Time from the sight of a fault on an object until it is as wanted again, in seconds.",
            RECOVERY_BUCKETS_S,
        )

    # The present state of objects.

    def set_container(self, container: str, state: str) -> None:
        self._objects.containers[container] = state

    def set_reachable(self, container: str, reachable: bool) -> None:
        self._objects.reachable[container] = reachable

    def remove_container(self, container: str) -> None:
        """Forget a container that left the spec."""
        self._objects.containers.pop(container, None)
        self._objects.reachable.pop(container, None)

    def set_guest(self, guest: str, cluster: str, container: str, state: str) -> None:
        """`cluster` and `container` are "" for a guest that has none. The series it had before is gone."""
        self._objects.guests[guest] = (cluster, container, state)

    def remove_guest(self, guest: str) -> None:
        self._objects.guests.pop(guest, None)

    def set_blocked(self, name: str, reason: str) -> None:
        """`name` is as in the record ("guest/a-head"); `reason` one of few words, not a sentence."""
        self._objects.blocked[name] = reason

    def clear_blocked(self, name: str) -> None:
        self._objects.blocked.pop(name, None)

    def set_queue(self, queue: str, length: int) -> None:
        self._objects.queues[queue] = length

    # What happened.

    def transition(self, kind: str, from_state: str, to_state: str) -> None:
        """`kind` is "container" or "guest"."""
        self._transitions.labels(kind, from_state, to_state).inc()

    def jump(self) -> None:
        self._jumps.inc()

    def observe_pass(self, seconds: float) -> None:
        self._passes.observe(seconds)

    def observe_action(self, action: str, seconds: float) -> None:
        """Failed actions count here too: their time was spent."""
        self._actions.labels(action).observe(seconds)

    def observe_install_step(self, step: str, seconds: float) -> None:
        """Counted once the install has ended well."""
        self._install_steps.labels(step).observe(seconds)

    def action_failed(self, action: str, error: str) -> None:
        """`error` is `HostError.kind`."""
        self._failures.labels(action, error).inc()

    def retried(self, action: str) -> None:
        self._retries.labels(action).inc()

    def observe_convergence(self, seconds: float) -> None:
        self._converging.observe(seconds)

    def observe_heal(self, seconds: float) -> None:
        self._healing.observe(seconds)

    # The site as a whole.

    def set_converged(self, converged: bool) -> None:
        self._converged.set(converged)

    def set_spec(self, *, valid: bool, generation: int) -> None:
        """`generation` is the one in force, also while the files on disk are not valid (S4)."""
        self._spec_valid.set(valid)
        self._spec_generation.set(generation)

    def set_frozen(self, frozen: bool) -> None:
        self._frozen.set(frozen)

    def render(self) -> bytes:
        """Prometheus' text format 0.0.4 (`prometheus_client.CONTENT_TYPE_LATEST`). Safe in another thread."""
        return generate_latest(self.registry)
