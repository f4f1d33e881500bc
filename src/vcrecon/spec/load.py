"""Reads a spec directory: five files in, one frozen `Spec` or all findings out. Called by cli and controller.

    files --nodes.parse--> trees --explain.validate--> texts --hosts, guests--> draft --check--> Spec

Each file is read once, so all of them belong to one generation with one digest.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from vcrecon.errors import Problem, SpecError
from vcrecon.spec.bare_metal import check_bare_metal, expand_builds, expand_provisioning, expand_systems
from vcrecon.spec.check import check_deployment, check_site
from vcrecon.spec.draft import CLUSTERS, CONTAINERS, DEPLOYMENT, IMAGES, SITE, Draft, Kind
from vcrecon.spec.explain import Checked, Model, validate
from vcrecon.spec.files import open_at_once
from vcrecon.spec.findings import At, Findings
from vcrecon.spec.guests import expand_guests
from vcrecon.spec.hosts import expand_containers, expand_images, expand_site
from vcrecon.spec.model import Limits, Site, Spec, Ssh
from vcrecon.spec.nodes import FILE_BYTES_MAX, Source, parse
from vcrecon.spec.recipe import Recipes, spec_path
from vcrecon.spec.text import (
    FILES,
    ClustersFile,
    ContainersFile,
    DeploymentFile,
    GuestFields,
    ImagesFile,
    PoliciesText,
    SiteFile,
)
from vcrecon.spec.values import label, shorten

_HOLDS: dict[str, tuple[Kind, ...]] = {
    SITE: ("network", "service"),
    IMAGES: ("image", "system", "build"),
    CONTAINERS: ("container",),
    CLUSTERS: ("cluster", "guest", "network"),
    DEPLOYMENT: (),
}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A usable spec, and what is odd about it without being wrong."""

    spec: Spec
    warnings: tuple[Problem, ...]


def load(directory: Path, *, require_placement: bool = True, instead: Mapping[str, bytes] | None = None) -> Loaded:
    """Read the spec in `directory`; with `instead`, as if files of these names had this content.

    With `require_placement` false, deployment.yaml may be missing or empty, and unplaced guests, pins that
    are not kept and containers that are too full are only warnings: what `vcrecon place` works from.
    Raises SpecError with every finding, warnings included.
    """
    sources = _read(directory, require_placement, instead or {})
    findings = Findings(sources)
    draft = Draft(directory, findings)
    site, policies, defaults = _site_text(draft, sources)
    images = _text(draft, sources, IMAGES, ImagesFile)
    containers = _text(draft, sources, CONTAINERS, ContainersFile)
    clusters = _text(draft, sources, CLUSTERS, ClustersFile)
    placing = _text(draft, sources, DEPLOYMENT, DeploymentFile)
    if site.model is not None:
        expand_site(draft, site.model)
        expand_provisioning(draft, site.model.provisioning)
    if images.model is not None:
        expand_images(draft, images.model)
        expand_systems(draft, images.model)
        expand_builds(draft, images.model)
    if containers.model is not None:
        expand_containers(draft, containers.model)
    if clusters.model is not None:
        if not site.complete:
            draft.gaps.add("guest")  # a default may be what is missing
        expand_guests(draft, clusters.model, Recipes(draft, defaults, policies))
    check_site(draft)
    check_bare_metal(draft)
    deployment: dict[str, tuple[str, ...]] = dict.fromkeys(draft.containers, ())
    cordoned: tuple[str, ...] = ()
    if placing.model is not None:
        deployment = check_deployment(
            draft, placing.model, require_placement=require_placement, complete=placing.complete
        )
        cordoned = placing.model.cordoned
    problems = findings.sorted()
    if findings.has_errors or site.model is None:
        raise SpecError(problems)
    frozen = _freeze(draft, _site(draft, site.model), deployment, frozenset(cordoned))
    return Loaded(frozen, problems)


def _read(directory: Path, require_placement: bool, instead: Mapping[str, bytes]) -> dict[str, Source]:
    """All five files, in the order in which findings are told."""
    try:
        present = {entry.name for entry in directory.iterdir()}
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SpecError([Problem(str(directory), 0, 0, f"not a spec directory: {reason}")]) from None
    if not present & FILES.keys():
        expected = ", ".join(FILES)
        raise SpecError([Problem(str(directory), 0, 0, f"no spec files here; expected {expected}")])
    sources = {}
    for name in FILES:
        try:
            data = instead[name] if name in instead else _read_file(directory / name)
        except FileNotFoundError:
            if name == DEPLOYMENT and not require_placement:
                sources[name] = Source(name, "", None, ())
                continue
            near = next((other for other in sorted(present) if other.lower().split(".")[0] == name[:-5]), None)
            hint = f"; is {shorten(near)} meant?" if near else f"; a spec directory has {', '.join(FILES)}"
            sources[name] = Source(name, "", None, (Problem(name, 0, 0, f"the file is missing{hint}"),))
            continue
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            sources[name] = Source(name, "", None, (Problem(name, 0, 0, f"cannot be read: {reason}"),))
            continue
        sources[name] = _parse(name, data, may_be_empty=name == DEPLOYMENT and not require_placement)
    return sources


def _read_file(path: Path) -> bytes:
    """The content, at most one byte over the limit."""
    with open_at_once(path) as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise OSError(0, "not a regular file")
        return stream.read(FILE_BYTES_MAX + 1)


def _parse(name: str, data: bytes, *, may_be_empty: bool) -> Source:
    source = parse(name, data)
    empty = source.root is None or source.root.value is None
    if empty and may_be_empty and all(problem.line == 0 for problem in source.problems):
        # Comments alone are no YAML document; an unreadable file still has its problems.
        is_blank = all(line.lstrip().startswith("#") for line in source.text.splitlines() if line.strip())
        return Source(name, source.text, None, () if is_blank else source.problems)
    if source.root is not None and source.root.value is None and not source.problems:
        return Source(name, source.text, None, (Problem(name, 0, 0, "the file is empty"),))
    if source.root is not None and not data.endswith(b"\n"):
        line = source.text.count("\n") + 1
        note = Problem(name, line, 0, "no newline at the end: is the file half-written?", "warning")
        return Source(name, source.text, source.root, (*source.problems, note), source.has_aliases)
    return source


def _text(draft: Draft, sources: dict[str, Source], name: str, model: type[Model]) -> Checked[Model]:
    source = sources[name]
    if source.root is None:
        draft.gaps.update(_HOLDS[name])
        if name == DEPLOYMENT and not source.problems:
            return Checked(model(), complete=True)
        return Checked(None, complete=False)
    checked = validate(model, name, source.root, draft.findings)
    broken = any(problem.severity == "error" for problem in source.problems)
    if broken or not checked.complete:
        draft.gaps.update(_HOLDS[name])
        return Checked(checked.model, complete=False)
    return checked


def _site_text(draft: Draft, sources: dict[str, Source]) -> tuple[Checked[SiteFile], PoliciesText, GuestFields]:
    site = _text(draft, sources, SITE, SiteFile)
    if site.model is None:
        return site, PoliciesText(), GuestFields()
    draft.attempt(At(SITE, ("site",)), lambda text: label(text, "site"), site.model.site)
    known_hosts = spec_path(draft.directory, site.model.ssh.known_hosts)
    if not os.path.isfile(known_hosts):
        at = At(SITE, ("ssh", "known_hosts"))
        draft.findings.warning(at, f"{shorten(site.model.ssh.known_hosts)} is not there: no container can be trusted")
    return site, site.model.policies, site.model.defaults


def _site(draft: Draft, text: SiteFile) -> Site:
    directory = draft.directory
    assert draft.boot is not None
    return Site(
        name=text.site,
        session=text.session,
        ssh=Ssh(text.ssh.user, spec_path(directory, text.ssh.key), spec_path(directory, text.ssh.known_hosts)),
        limits=Limits(**text.limits.model_dump()),
        stop_grace_s=text.policies.stop_grace,
        boot_deadline_s=text.policies.boot_deadline,
        hook_deadline_s=text.policies.hook_deadline,
        provisioning=draft.boot,
    )


def _freeze(draft: Draft, site: Site, deployment: dict[str, tuple[str, ...]], cordoned: frozenset[str]) -> Spec:
    values = {name: getattr(site, name) for name in (field.name for field in fields(Site))}
    values["services"] = tuple(draft.services.values())
    site = Site(**values)
    content = (
        site,
        *(
            sorted(table.items())
            for table in (draft.images, draft.systems, draft.containers, draft.networks, draft.clusters, draft.guests)
        ),
        sorted(deployment.items()),
        sorted(cordoned),
        sorted((str(path), digest) for path, digest in draft.secrets.items()),
    )
    base = str(draft.directory.absolute()) + os.sep
    digest = hashlib.sha256(repr(_canonical(content)).replace(base, "").encode()).hexdigest()
    return Spec(
        site=site,
        images=draft.images,
        containers=draft.containers,
        networks=draft.networks,
        clusters=draft.clusters,
        guests=draft.guests,
        deployment=deployment,
        cordoned=cordoned,
        digest=digest,
        systems=draft.systems,
        builds=draft.builds,
    )


def _canonical(value: Any) -> Any:
    """Plain tuples and scalars, so that the digest depends on values alone."""
    if isinstance(value, (list, tuple)):
        return tuple(_canonical(item) for item in value)
    getter = _getter(type(value))
    if getter is not None:
        return tuple(_canonical(item) for item in getter(value))
    return str(value) if isinstance(value, Path) else value


_GETTERS: dict[type, Callable[[Any], tuple[Any, ...]] | None] = {}


def _getter(kind: type) -> Callable[[Any], tuple[Any, ...]] | None:
    """How to take all fields that count of a dataclass at once; None for other types."""
    if kind not in _GETTERS:
        is_data = is_dataclass(kind)
        _GETTERS[kind] = attrgetter(*(field.name for field in fields(kind) if field.compare)) if is_data else None
    return _GETTERS[kind]
