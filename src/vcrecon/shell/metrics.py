"""The metrics of a running controller; docs/metrics.md lists them. Called by `controller`, `ledger` and `service`.

Counters and histograms are prometheus_client's own; what describes the present state of objects is in
`shell.gauges`. Count after the fact is recorded. Every series of a counter begins at 0 when the service starts, as
far as its labels are known then: Prometheus sees only growth, so of a counter that begins at 1 the first is lost.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import permutations

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from vcrecon.shell.gauges import ContainerFacts, Install, Objects

# Seconds. A pass takes milliseconds, a guest minutes, an installation of a host half an hour.
PASS_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
ACTION_BUCKETS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0)
LAG_BUCKETS_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SSH_CALLS = ("connect", "look", "hypervisor", "step")
RESULTS = ("done", "failed")
UNKNOWN_STATE = "unknown"
RECOVERY_BUCKETS_S = (1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)


class Metrics:
    """All metrics of one controller, in a registry of their own.

    `container_states` and `guest_states` name the states that are reported even when no object is in them; `actions`
    the kinds of actions that are counted from 0 on.
    """

    def __init__(
        self,
        *,
        container_states: Sequence[str] = (),
        guest_states: Sequence[str] = (),
        actions: Sequence[str] = (),
    ) -> None:
        # prometheus_client offers this for the process only: without it each counter and histogram has a
        # `_created` twin, which no graph of ours uses.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call,unused-ignore]
        self.registry = CollectorRegistry(auto_describe=True)
        self._objects = Objects(container_states, guest_states)
        self.registry.register(self._objects)
        ProcessCollector(registry=self.registry)
        self._make_counters()
        self._make_histograms()
        self._make_gauges()
        for kind, states in (("container", container_states), ("guest", guest_states)):
            for before, after in permutations(states, 2):
                self._transitions.labels(kind, before, after)
        for action in actions:
            self._action_seconds.labels(action)
            self._retries.labels(action)
            for result in RESULTS:
                self._actions.labels(action, result)
        for call in SSH_CALLS:
            self._ssh.labels(call)

    def _make_gauges(self) -> None:
        def gauge(name: str, help_text: str) -> Gauge:
            return Gauge(f"vcrecon_{name}", help_text, registry=self.registry)

        self._converged = gauge("converged", "Whether every object is as the spec wants it (1) or not (0).")
        self._spec_valid = gauge(
            "spec_valid", "Whether the spec files on disk are valid (1); at 0 the last good ones stay in force."
        )
        self._spec_generation = gauge(
            "spec_generation", "Number of spec generations taken into force since the service started."
        )
        self._frozen = gauge(
            "frozen", "Whether moves and reinstalls are frozen (1), as when many containers vanish at once."
        )
        self._record_writable = gauge(
            "record_writable", "Whether the record could be written when last tried (1); at 0 nothing is begun."
        )
        self._tasks = gauge(
            "tasks", "Number of asyncio tasks of the service: some for each container, and those at work."
        )
        self._record_writable.set(1)  # it was opened, and nothing was tried since

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
        self._actions = counter(
            "actions_total", "Actions that ended, by action and result (done or failed).", "action", "result"
        )
        self._failures = counter(
            "action_failures_total",
            "Actions that failed, by action and kind of error. A series begins with its first failure.",
            "action",
            "error",
        )
        self._retries = counter(
            "retries_total", "Actions that were begun again on an object after a failure.", "action"
        )

    def _make_histograms(self) -> None:
        def histogram(name: str, help_text: str, buckets: Sequence[float], *labels: str) -> Histogram:
            return Histogram(f"vcrecon_{name}", help_text, labels, registry=self.registry, buckets=buckets)

        self._passes = histogram(
            "pass_seconds",
            "Duration of one pass over a container, from observation to record, in seconds.",
            PASS_BUCKETS_S,
        )
        self._action_seconds = histogram(
            "action_seconds", "Duration of an action on a host, in seconds.", ACTION_BUCKETS_S, "action"
        )
        self._ssh = histogram(
            "ssh_seconds",
            "Duration of a call to a host over SSH, in seconds, failed ones too: connect (log in), look (a script in "
            "the resident shell), hypervisor (questions to the resident virsh), step (a step of an action).",
            PASS_BUCKETS_S,
            "call",
        )
        self._event_lag = histogram(
            "event_lag_seconds",
            "Time from a word of a hypervisor's event stream to the end of the pass that it woke, in seconds.",
            LAG_BUCKETS_S,
        )
        self._loop_lag = histogram(
            "loop_lag_seconds",
            "How late the service's event loop ran a timer, in seconds, taken twice a second.",
            LAG_BUCKETS_S,
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

    def announce(
        self,
        site: tuple[str, str, str],
        containers: Iterable[str],
        clusters: Mapping[str, Collection[str]],
        placement: Mapping[str, str],
    ) -> None:
        """Take in what the spec has: the site's name, session and our version; guests by cluster; all guests' places.

        What a guest counts begins at 0 here. What nobody saw yet is in state "unknown"; what left the spec is
        forgotten. A guest without a place has the place "".
        """
        objects = self._objects
        objects.site = site
        objects.clusters = {name: len(members) for name, members in clusters.items()}
        cluster_of = {guest: name for name, members in clusters.items() for guest in members}
        keys = [(guest, cluster_of.get(guest, "")) for guest in placement]
        objects.restarts = {key: objects.restarts.get(key, 0) for key in keys}
        objects.moves = {key: objects.moves.get(key, 0) for key in keys}
        for name in containers:
            objects.containers.setdefault(name, (UNKNOWN_STATE, 0.0))
        for guest, cluster in keys:
            if objects.guests.get(guest, ("", "", UNKNOWN_STATE))[2] == UNKNOWN_STATE:
                objects.guests[guest] = (cluster, placement[guest], UNKNOWN_STATE, 0.0)
        for gone in objects.guests.keys() - placement.keys():
            del objects.guests[gone]

    def set_container(self, container: str, state: str, since_s: float = 0.0) -> None:
        """`since_s` is Unix seconds, here and below."""
        self._objects.containers[container] = (state, since_s)

    def set_reachable(self, container: str, reachable: bool) -> None:
        self._objects.reachable[container] = reachable

    def set_facts(self, container: str, facts: ContainerFacts) -> None:
        self._objects.facts[container] = facts

    def set_last_error(self, container: str, error: str, at_s: float) -> None:
        """`error` is `HostError.kind`. Of several the last counts."""
        self._objects.errors[container] = (error, at_s)

    def remove_container(self, container: str) -> None:
        """Forget a container that left the spec."""
        objects = self._objects
        for of_containers in (objects.containers, objects.reachable, objects.facts, objects.errors):
            of_containers.pop(container, None)

    def set_guest(self, guest: str, cluster: str, container: str, state: str, since_s: float = 0.0) -> None:
        """`cluster` and `container` are "" for a guest that has none. The series it had before is gone."""
        self._objects.guests[guest] = (cluster, container, state, since_s)

    def remove_guest(self, guest: str) -> None:
        self._objects.guests.pop(guest, None)

    def set_blocked(self, name: str, reason: str) -> None:
        """`name` is as in the record ("guest/a-head"); `reason` one of few words, not a sentence."""
        self._objects.blocked[name] = reason

    def clear_blocked(self, name: str) -> None:
        self._objects.blocked.pop(name, None)

    def set_paused(self, names: Collection[str]) -> None:
        self._objects.paused = frozenset(names)

    def set_queue(self, queue: str, length: int) -> None:
        self._objects.queues[queue] = length

    def set_in_flight(self, number: int) -> None:
        self._objects.in_flight = number

    def set_installs(self, installs: Mapping[str, Install]) -> None:
        """All installs under way, by container."""
        self._objects.installs = dict(installs)

    # What happened.

    def transition(self, kind: str, from_state: str, to_state: str) -> None:
        """`kind` is "container" or "guest"."""
        self._transitions.labels(kind, from_state, to_state).inc()

    def jump(self) -> None:
        self._jumps.inc()

    def restarted(self, guest: str, cluster: str) -> None:
        self._count(self._objects.restarts, (guest, cluster))

    def moved(self, guest: str, cluster: str) -> None:
        self._count(self._objects.moves, (guest, cluster))

    @staticmethod
    def _count(counts: dict[tuple[str, str], int], key: tuple[str, str]) -> None:
        counts[key] = counts.get(key, 0) + 1

    def observe_pass(self, seconds: float) -> None:
        self._passes.observe(seconds)

    def observe_ssh(self, call: str, seconds: float) -> None:
        """`call` is one of SSH_CALLS."""
        self._ssh.labels(call).observe(seconds)

    def observe_event_lag(self, seconds: float) -> None:
        self._event_lag.observe(seconds)

    def observe_loop_lag(self, seconds: float) -> None:
        self._loop_lag.observe(seconds)

    def action_done(self, action: str, seconds: float) -> None:
        self._action_seconds.labels(action).observe(seconds)
        self._actions.labels(action, "done").inc()

    def observe_install_step(self, step: str, seconds: float) -> None:
        """Counted once the install has ended well."""
        self._install_steps.labels(step).observe(seconds)

    def action_failed(self, action: str, error: str, seconds: float) -> None:
        """`error` is `HostError.kind`; the time that was spent counts as well."""
        self._action_seconds.labels(action).observe(seconds)
        self._actions.labels(action, "failed").inc()
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

    def set_record_writable(self, writable: bool) -> None:
        self._record_writable.set(writable)

    def set_tasks(self, number: int) -> None:
        self._tasks.set(number)

    def render(self) -> bytes:
        """Prometheus' text format 0.0.4 (`prometheus_client.CONTENT_TYPE_LATEST`). Safe in another thread."""
        return generate_latest(self.registry)
