"""The planner: (spec, observation, memory, now) to a Plan, for one container. Pure; called by the controller.

Level-triggered: a plan comes from what is, never from what just happened. Each object gets one decision.
The guests' rules are in `guest_rules`; here is what concerns the container itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from vcrecon.core.actions import FetchImage, SetUpNetwork
from vcrecon.core.case import Case
from vcrecon.core.classify import NetworkGaps, answered, container_state, guest_state, network_gaps
from vcrecon.core.decisions import Block, Decision, Do, Plan, Rest, Status, Wait, backing_off
from vcrecon.core.guest_rules import decide
from vcrecon.core.install_rules import Verdict, judge, runs_older_system, sent_home
from vcrecon.core.installs import BootFacts
from vcrecon.core.memory import Memory
from vcrecon.core.observation import UNKNOWN, NetworkFacts, Seen, Storage, Unseen
from vcrecon.core.programs import missing
from vcrecon.core.states import ContainerState, GuestState
from vcrecon.core.wanted import Wanted, golden_volume
from vcrecon.core.world import Sighting, World, fenced, few_answered, frozen, held_back
from vcrecon.spec.model import Guest, Spec

POOL_FULL_PERCENT = 95.0


@dataclass(frozen=True)
class View:
    """All that one pass of one container may look at. `busy` holds subjects with an action in flight."""

    wanted: Wanted
    world: World
    memory: Memory
    now_s: float
    busy: frozenset[str] = field(default_factory=frozenset)
    boot: BootFacts = field(default_factory=BootFacts)

    @cached_property
    def frozen(self) -> str | None:
        """Why no guest is moved anywhere on the site just now (S6)."""
        return frozen(self.spec, self.world, self.memory) or few_answered(self.spec, self.world, self.memory)

    @cached_property
    def held_back(self) -> str | None:
        """Why running guests are not stopped for this spec before a person confirms it (S3)."""
        return held_back(self.spec, self.world, self.memory)

    @property
    def spec(self) -> Spec:
        return self.wanted.spec


def plan_container(view: View, container: str) -> Plan:
    """Plan one container from its last observation; never raises for any observation."""
    subject = f"container/{container}"
    observation = view.world.current.get(container)
    if observation is None:
        return Plan(container, (), (Wait(subject, "not looked at yet", 1.0),))
    verdict = judge(view, observation)
    if isinstance(observation, Unseen):
        return _unreachable(view, observation, verdict)
    if verdict is not None and not isinstance(verdict.decision, Block):
        return _installing(view, container, verdict)
    sightings = view.world.on(container)
    here = _guests_here(view.spec, container, sightings)
    gaps = _gaps(view, container, here, observation)
    state = container_state(observation, gaps)
    details = [str(gaps) if gaps else "", runs_older_system(view.spec, observation)]
    statuses = [Status(subject, state, "; ".join(detail for detail in details if detail))]
    decisions = [_container_decision(view, observation, state, gaps)]
    if verdict is not None and isinstance(decisions[0], Rest):
        decisions = [verdict.decision]  # the install waits for a person: what else there is to do goes on
    names = dict.fromkeys(view.spec.deployment.get(container, ())) | dict.fromkeys(sorted(sightings))
    waiting: list[tuple[str, Wait | Block]] = []
    for name in names:
        case = Case(
            view,
            observation,
            name,
            sightings.get(name) or Sighting(container, name),
            state is ContainerState.VLAN_READY,
        )
        status = _guest_status(view, case)
        decision = decide(case)
        if status is not None:
            statuses.append(status)
        decisions.append(decision)
        if isinstance(decision, Wait | Block) and decision.image:
            waiting.append((name, decision))
    decisions.extend(_image_decisions(view, observation, waiting))
    return Plan(container, tuple(statuses), tuple(decisions), verdict.hold if verdict else "")


def _installing(view: View, container: str, verdict: Verdict) -> Plan:
    """Its disks are about to be made anew, or are just now: nothing is done to the guests there."""
    statuses = [Status(f"container/{container}", verdict.state, verdict.detail)]
    statuses += [Status(f"guest/{n}", None, f"{container} is installed anew") for n in _left_there(view, container)]
    return Plan(container, tuple(statuses), (verdict.decision,), verdict.hold)


def _unreachable(view: View, observation: Unseen, verdict: Verdict | None) -> Plan:
    """Nothing is concluded from silence: every object keeps its last state, and no more than an install is planned."""
    container = observation.container
    since = view.memory.seen.get(container)
    ago = f"last seen {view.now_s - since:.0f} s ago" if since else "never seen so far"
    statuses = [Status(f"container/{container}", None, observation.reason)]
    if verdict is not None:
        statuses = [Status(f"container/{container}", verdict.state, verdict.detail or observation.reason)]
    there = _left_there(view, container)
    statuses += [Status(f"guest/{name}", None, f"{container} does not answer") for name in there]
    if verdict is not None:
        return Plan(container, tuple(statuses), (verdict.decision,), verdict.hold)
    message = f"{container} does not answer ({ago}): {observation.reason}{sent_home(view, container)}"
    reason = observation.kind
    return Plan(container, tuple(statuses), (Block(f"container/{container}", reason, message, look_again_s=10.0),))


def _left_there(view: View, container: str) -> list[str]:
    """The guests whose word is a container's that shows nothing now."""
    traces = view.world.on(container)
    placed = set(view.spec.deployment.get(container, ())) | {name for name, s in traces.items() if s.live}
    placed = {
        name
        for name in placed
        if not any(s.live and view.world.reachable(s.container) for s in view.world.elsewhere(name, container))
        and (name in traces or not fenced(view.memory, container))
    }
    if fenced(view.memory, container):
        placed = {name for name in placed if view.spec.placement.get(name) in (None, container)}
    return sorted(placed)


def _guests_here(spec: Spec, container: str, sightings: Mapping[str, Sighting]) -> list[Guest]:
    """Those whose network must be ready: placed here, or live here and known to the spec."""
    names = set(spec.deployment.get(container, ()))
    names |= {name for name, sighting in sightings.items() if sighting.live and name in spec.guests}
    return [spec.guests[name] for name in sorted(names)]


def _gaps(view: View, container: str, here: list[Guest], observation: Seen) -> NetworkGaps | None:
    if not isinstance(observation.network, NetworkFacts):
        return None
    gaps = network_gaps(view.wanted.bridges(here), view.wanted.firewall(container, here).digest, observation.network)
    on = view.world.on(container)
    if not any(s.active and name not in view.spec.guests for name, s in on.items()):
        return gaps
    # A guest that left the spec still runs: its bridge stays until it is quarantined, and so do the rules that
    # let its frames pass, unless a guest that is to start here needs new ones (S3: it may wait for a person).
    placed = (on.get(name) for name in view.spec.deployment.get(container, ()))
    keep_rules = observation.network.firewall != "" and all(s is not None and s.active for s in placed)
    return NetworkGaps(gaps.vlans, (), gaps.firewall and not keep_rules)


def _container_decision(view: View, observation: Seen, state: ContainerState, gaps: NetworkGaps | None) -> Decision:
    container, subject = observation.container, f"container/{observation.container}"
    wanted = view.spec.containers[container]
    if subject in view.busy:
        return Wait(subject, "a step is under way")
    if subject in view.memory.paused or "site" in view.memory.paused:
        return Rest(subject, "paused: vcrecon keeps its hands off until `vcrecon resume`")
    if state is ContainerState.PXE:
        return Block(
            subject,
            "not-installed",
            f"{container} answers, but has no /etc/vcrecon/release: vcrecon did not install it and leaves it alone",
        )
    release = observation.release
    found = release.get("hypervisor", "") if isinstance(release, Mapping) else ""
    if found and found != wanted.hypervisor:
        return Block(
            subject,
            "wrong-hypervisor",
            f"{container} runs {found}, containers.yaml says {wanted.hypervisor}: correct the spec or reinstall it",
        )
    later = backing_off(view.memory, subject, view.now_s)
    if later is not None:
        return later
    if gaps is None:
        trouble = (observation.trouble or {}).get("network", "no answer")
        if "network" in (observation.missing or {}):
            return _missing_program(observation)
        return Block(subject, "network-unknown", f"{container} cannot show its network: {trouble}")
    if gaps:
        return Do(SetUpNetwork(container, str(gaps), gaps.vlans, gaps.leftovers))
    if observation.missing:
        return _missing_program(observation)
    if isinstance(observation.storage, Storage):
        storage = _storage_trouble(view, observation.storage, container)
        if storage is not None:
            return storage
    return Rest(subject, "every VLAN, bridge and rule is in place")


def _missing_program(observation: Seen) -> Block:
    reason, message = missing(next(iter((observation.missing or {}).values())), observation.container)
    return Block(f"container/{observation.container}", reason, message)


def _storage_trouble(view: View, storage: Storage, container: str) -> Block | None:
    """What the container's disks lack, said once for the container rather than for every guest."""
    subject, wanted = f"container/{container}", view.spec.containers[container]
    if not view.spec.deployment.get(container):
        return None
    if not storage.group_present:
        return Block(
            subject,
            "no-volume-group",
            f"{container} has no volume group {wanted.volume_group}: "
            f"is its disk gone? `vgs` there, or correct volume_group in containers.yaml",
        )
    if not storage.pool_bytes:
        return Block(
            subject,
            "no-thin-pool",
            f"{container} has no thin pool {wanted.volume_group}/{wanted.pool}: make it with "
            f"`lvcreate --type thin-pool -l 90%FREE -n {wanted.pool} {wanted.volume_group}`",
        )
    fill = max(storage.pool_data_percent, storage.pool_metadata_percent)
    if fill >= POOL_FULL_PERCENT:
        return Block(
            subject,
            "pool-full",
            f"{container}: thin pool {wanted.volume_group}/{wanted.pool} is full "
            f"(data {storage.pool_data_percent:.0f} %, metadata {storage.pool_metadata_percent:.0f} %): "
            "prune quarantined disks or extend it; guests there may fail to write",
        )
    return None


def _image_decisions(view: View, observation: Seen, waiting: list[tuple[str, Wait | Block]]) -> list[Decision]:
    """Fetch each image that a guest here waits for and the container does not hold yet."""
    decisions: list[Decision] = []
    # Whoever needs the whole image comes first, and then the others have what they need as well.
    needed: dict[str, tuple[str, bool]] = {}
    for name, wait in sorted(waiting, key=lambda entry: entry[1].boot_only):
        needed.setdefault(wait.image, (name, wait.boot_only))
    for image, (name, boot_only) in needed.items():
        subject = f"image/{observation.container}/{image}"
        if subject in view.busy:
            decisions.append(Wait(subject, "the image is being fetched"))
        elif golden_volume(view.spec.images[image].root.sha256) in _strangers(observation):
            decisions.append(_golden_taken(view, observation, image))
        else:
            fetch = Do(FetchImage(observation.container, f"needed by {name}", image, boot_only))
            decisions.append(backing_off(view.memory, subject, view.now_s) or fetch)
    if not view.world.clear(observation.container):
        return decisions  # who waits for what is not known
    # A fetch whose controller or connection died may have ended well without it: nobody begins it again, and its intent
    # and its failures end here.
    prefix = f"image/{observation.container}/"
    begun = view.memory.intents.keys() | view.memory.attempts.keys()
    left = {subject for subject in begun if subject.startswith(prefix)} - view.busy
    decisions += [Rest(s, "no guest here waits for it") for s in sorted(left) if s.removeprefix(prefix) not in needed]
    return decisions


def _strangers(observation: Seen) -> frozenset[str]:
    return observation.storage.strangers if isinstance(observation.storage, Storage) else frozenset()


def _golden_taken(view: View, observation: Seen, image: str) -> Block:
    group = view.spec.containers[observation.container].volume_group
    volume = golden_volume(view.spec.images[image].root.sha256)
    return Block(
        f"image/{observation.container}/{image}",
        "volume-taken",
        f"{observation.container} has a volume {group}/{volume} that is not vcrecon's, or another site's: "
        f"`lvrename {group} {volume} NEW-NAME` there",
    )


def _guest_status(view: View, case: Case) -> Status | None:
    """The guest's state as seen here; None when another container tells it better."""
    sighting, guest = case.here, case.guest
    if case.subject in view.busy:
        # Half done, and its parts were looked at at different times: it keeps its state until it is looked at whole.
        return None
    wanted_here = view.spec.placement.get(case.name) == sighting.container
    if not wanted_here and not sighting.live:
        if case.name in view.spec.guests or not sighting.quarantined or not case.last_word:
            return None
        return Status(f"guest/{case.name}", GuestState.QUARANTINED, "left the spec; its disk is kept")
    if wanted_here and not sighting.live:
        elsewhere = view.world.elsewhere(case.name, sighting.container)
        if any(s.live and not fenced(view.memory, s.container) for s in elsewhere):
            return None
    if case.observation.domains is UNKNOWN or not isinstance(case.observation.storage, Storage):
        return Status(f"guest/{case.name}", None, "the hypervisor or LVM does not answer")
    state = guest_state(sighting, view.memory, view.wanted.context(guest) if guest and wanted_here else None)
    if wanted_here and state is GuestState.QUARANTINED:
        state = GuestState.PENDING
    detail = "booting" if sighting.active and not answered(view.memory, sighting) else ""
    return Status(f"guest/{case.name}", state, detail)
