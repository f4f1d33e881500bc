"""Sites of every size: how many series they have, and that this grows with the objects alone."""

from __future__ import annotations

import time

from tests.support.sites import metrics_of

from vcrecon.shell.metrics import Metrics


def series(metrics: Metrics) -> int:
    return sum(not line.startswith("#") for line in metrics.render().decode().splitlines())


def test_series_grow_with_the_objects_and_with_nothing_else() -> None:
    sizes = {(c, k): series(metrics_of(c, k)) for c, k in ((1, 0), (2, 0), (64, 26), (1000, 2000))}
    empty = sizes[1, 0] - (per_container := sizes[2, 0] - sizes[1, 0])
    guests = 26 * 5
    per_guest = (sizes[64, 26] - empty - 64 * per_container - 26) / guests
    print(f"{empty} fixed, {per_container} a container, {per_guest} a guest, 1 a cluster: {sizes}")
    assert per_guest == 4
    assert sizes[1000, 2000] == empty + 1000 * per_container + 10_000 * 4 + 2000


def test_a_scrape_of_10_000_guests_is_made_once() -> None:
    metrics = metrics_of(1000, 2000)
    began_s = time.process_time()
    text = metrics.render()
    print(f"{len(text) / 1e6:.1f} MB in {time.process_time() - began_s:.2f} s of CPU")
    assert text.count(b"vcrecon_guest_info{") == 10_000
