"""The metrics: the promised names and labels, one series an object, and text that Prometheus takes."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Callable

from prometheus_client.parser import text_string_to_metric_families

from vcrecon.shell.gauges import ContainerFacts, Install
from vcrecon.shell.metrics import Metrics
from vcrecon.shell.pulse import feel_pulse

# Design, section 8: dashboards and alarms depend on these.
CONTRACT = {
    "vcrecon_container_info": {"container", "state"},
    "vcrecon_guest_info": {"guest", "cluster", "container", "state"},
    "vcrecon_containers": {"state"},
    "vcrecon_guests": {"state"},
    "vcrecon_container_reachable": {"container"},
    "vcrecon_transitions_total": {"kind", "from_state", "to_state"},
    "vcrecon_jumps_total": set(),
    "vcrecon_pass_seconds_count": set(),
    "vcrecon_action_seconds_count": {"action"},
    "vcrecon_action_failures_total": {"action", "error"},
    "vcrecon_retries_total": {"action"},
    "vcrecon_blocked": {"object", "reason"},
    "vcrecon_queue": {"queue"},
    "vcrecon_converged": set(),
    "vcrecon_converge_seconds_count": set(),
    "vcrecon_heal_seconds_count": set(),
    "vcrecon_spec_valid": set(),
    "vcrecon_spec_generation": set(),
    "vcrecon_frozen": set(),
}


def samples(metrics: Metrics, name: str) -> dict[frozenset[tuple[str, str]], float]:
    return {
        frozenset(sample.labels.items()): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
        if sample.name == name
    }


def labels(**values: str) -> frozenset[tuple[str, str]]:
    return frozenset(values.items())


def busy_metrics() -> Metrics:
    metrics = Metrics(container_states=("pxe", "vlan-ready"), guest_states=("pending", "running"))
    metrics.set_container("c01", "vlan-ready")
    metrics.set_reachable("c01", True)
    metrics.set_guest("a-head", "a", "c01", "running")
    metrics.set_blocked("guest/a-n1", "no-space")
    metrics.set_queue("install", 3)
    metrics.transition("guest", "pending", "running")
    metrics.jump()
    metrics.observe_pass(0.004)
    metrics.action_done("start-guest", 1.5)
    metrics.action_failed("start-guest", "transient", 0.5)
    metrics.retried("start-guest")
    metrics.observe_convergence(20.0)
    metrics.observe_heal(3.0)
    metrics.set_converged(True)
    metrics.set_spec(valid=True, generation=4)
    metrics.set_frozen(False)
    return metrics


def test_every_promised_name_is_there_with_its_labels() -> None:
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(busy_metrics().render().decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    assert {name: found.get(name) for name in CONTRACT} == CONTRACT


def test_every_metric_of_ours_has_a_help_text() -> None:
    families = list(text_string_to_metric_families(busy_metrics().render().decode()))
    assert [family.name for family in families if not family.documentation] == []


def test_promtool_finds_nothing_to_say(program: Callable[[str], str]) -> None:
    command = [program("promtool"), "check", "metrics"]
    result = subprocess.run(command, input=busy_metrics().render(), capture_output=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


def test_guest_has_one_series_wherever_it_goes() -> None:
    metrics = Metrics()
    metrics.set_guest("a-head", "a", "c01", "running")
    metrics.set_guest("a-head", "a", "c02", "imaged")
    expected = {labels(guest="a-head", cluster="a", container="c02", state="imaged"): 1.0}
    assert samples(metrics, "vcrecon_guest_info") == expected


def test_removed_objects_leave_no_series() -> None:
    metrics = busy_metrics()
    metrics.remove_guest("a-head")
    metrics.remove_container("c01")
    metrics.clear_blocked("guest/a-n1")
    gone = ("guest_info", "container_info", "container_reachable", "blocked")
    assert [samples(metrics, f"vcrecon_{name}") for name in gone] == [{}, {}, {}, {}]


def test_numbers_by_state_show_zero_for_states_without_objects() -> None:
    metrics = Metrics(guest_states=("pending", "running"))
    metrics.set_guest("a-head", "a", "c01", "running")
    metrics.set_guest("a-n1", "a", "c02", "running")
    expected = {labels(state="pending"): 0.0, labels(state="running"): 2.0}
    assert samples(metrics, "vcrecon_guests") == expected


def test_state_nobody_announced_is_counted_all_the_same() -> None:
    metrics = Metrics(container_states=("pxe",))
    metrics.set_container("c01", "strange")
    assert samples(metrics, "vcrecon_containers") == {labels(state="pxe"): 0.0, labels(state="strange"): 1.0}


def test_what_happened_is_counted_by_its_labels() -> None:
    metrics = Metrics()
    metrics.transition("guest", "pending", "imaged")
    metrics.transition("guest", "pending", "imaged")
    metrics.action_failed("start-guest", "unreachable", 0.5)
    step = labels(kind="guest", from_state="pending", to_state="imaged")
    assert samples(metrics, "vcrecon_transitions_total") == {step: 2.0}
    failure = labels(action="start-guest", error="unreachable")
    assert samples(metrics, "vcrecon_action_failures_total") == {failure: 1.0}


def test_bad_spec_shows_beside_the_generation_in_force() -> None:
    metrics = Metrics()
    metrics.set_spec(valid=False, generation=7)
    assert samples(metrics, "vcrecon_spec_valid") == {labels(): 0.0}
    assert samples(metrics, "vcrecon_spec_generation") == {labels(): 7.0}


def test_the_record_counts_as_writable_until_a_write_failed() -> None:
    metrics = Metrics()
    assert samples(metrics, "vcrecon_record_writable") == {labels(): 1.0}
    metrics.set_record_writable(False)
    assert samples(metrics, "vcrecon_record_writable") == {labels(): 0.0}


def test_two_controllers_in_one_process_count_apart() -> None:
    first, second = Metrics(), Metrics()
    first.jump()
    assert samples(second, "vcrecon_jumps_total") == {labels(): 0.0}


def test_what_is_known_beforehand_is_counted_from_zero() -> None:
    """Prometheus sees growth only: of a counter that begins at 1 the first is lost."""
    metrics = Metrics(guest_states=("pending", "running"), actions=("start-guest",))
    metrics.announce(("class", "running", "1"), (), {"a": ("a-head",)}, {"a-head": "c01", "guide": ""})
    assert samples(metrics, "vcrecon_guest_restarts_total") == {
        labels(guest="a-head", cluster="a"): 0.0,
        labels(guest="guide", cluster=""): 0.0,
    }
    assert set(samples(metrics, "vcrecon_transitions_total").values()) == {0.0}
    assert samples(metrics, "vcrecon_actions_total") == {
        labels(action="start-guest", result="done"): 0.0,
        labels(action="start-guest", result="failed"): 0.0,
    }


def test_guest_that_left_the_spec_leaves_no_series_and_the_others_keep_their_counts() -> None:
    metrics = Metrics()
    placement = {"a-head": "c01", "a-n1": "c01"}
    metrics.announce(("class", "running", "1"), ("c01",), {"a": ("a-head", "a-n1")}, placement)
    for guest in ("a-head", "a-n1"):
        metrics.set_guest(guest, "a", "c01", "running", 100.0)
        metrics.restarted(guest, "a")
        metrics.moved(guest, "a")
    metrics.announce(("class", "running", "1"), ("c01",), {"a": ("a-head",)}, {"a-head": "c01"})
    left = labels(guest="a-head", cluster="a")
    assert samples(metrics, "vcrecon_guest_restarts_total") == {left: 1.0}
    assert samples(metrics, "vcrecon_guest_moves_total") == {left: 1.0}
    assert samples(metrics, "vcrecon_guest_state_timestamp_seconds") == {labels(guest="a-head"): 100.0}
    assert samples(metrics, "vcrecon_cluster_guests") == {labels(cluster="a"): 1.0}


def test_what_nobody_saw_yet_is_unknown_and_becomes_known() -> None:
    metrics = Metrics()
    for _ in range(2):  # and again with every generation
        metrics.announce(("class", "running", "1"), ("c01",), {"a": ("a-head",)}, {"a-head": "c01"})
    unknown = labels(guest="a-head", cluster="a", container="c01", state="unknown")
    assert samples(metrics, "vcrecon_guest_info") == {unknown: 1.0}
    assert samples(metrics, "vcrecon_container_info") == {labels(container="c01", state="unknown"): 1.0}
    assert samples(metrics, "vcrecon_guest_state_timestamp_seconds") == {}, "since nobody knows when"
    metrics.set_guest("a-head", "a", "c02", "running", 100.0)
    metrics.announce(("class", "running", "1"), ("c01",), {"a": ("a-head",)}, {"a-head": "c01"})
    assert samples(metrics, "vcrecon_guests") == {labels(state="running"): 1.0}


def test_a_pool_that_nobody_saw_has_no_fill() -> None:
    metrics = Metrics()
    metrics.set_facts("c01", ContainerFacts(memory_bytes=1024))
    metrics.set_facts("c02", ContainerFacts(pool_data=0.5, pool_metadata=0.25))
    assert samples(metrics, "vcrecon_container_pool_data_ratio") == {labels(container="c02"): 0.5}
    assert samples(metrics, "vcrecon_container_memory_bytes")[labels(container="c01")] == 1024.0


def test_install_is_shown_while_it_lasts() -> None:
    metrics = Metrics()
    metrics.set_installs({"c01": Install("download", 0.43, 120.0), "c02": Install("wait", 0.0, None)})
    assert samples(metrics, "vcrecon_install_progress_ratio")[labels(container="c01", step="download")] == 0.43
    assert samples(metrics, "vcrecon_install_eta_seconds") == {labels(container="c01"): 120.0}
    metrics.set_installs({})
    assert samples(metrics, "vcrecon_install_progress_ratio") == {}


async def test_the_pulse_tells_how_late_the_loop_was() -> None:
    told: list[float] = []
    heard = asyncio.Event()

    def observe(lag_s: float) -> None:
        told.append(lag_s)
        heard.set()

    pulse = asyncio.create_task(feel_pulse(observe, 0.001))
    await asyncio.sleep(0)
    time.sleep(0.2)  # noqa: ASYNC251 - a loop that is held up is what this is about
    async with asyncio.timeout(30):
        await heard.wait()
    pulse.cancel()
    assert told[0] >= 0.1
