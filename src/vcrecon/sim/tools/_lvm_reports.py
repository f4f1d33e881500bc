"""The reports of lvm2 2.03.16 (lvs, vgs, pvs, fullreport), basic and JSON; used by `sim.tools.lvm`."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from vcrecon.sim.lvm import CHUNK_BYTES, EXTENT_BYTES, LvmError, Volume, VolumeGroup, lvm_uuid
from vcrecon.sim.process import Process
from vcrecon.sim.tools._common import Failure, given, last, options
from vcrecon.sim.tools._lvm_fields import LV_FIELDS, PV_FIELDS, PVSEG_FIELDS, SEG_FIELDS, VG_FIELDS

USAGE_STATUS = 3
UNITS = {"b": 1, "s": 512, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
SHORT = "yfqvt"
LONG = [
    "yes",
    "force",
    "quiet",
    "verbose",
    "test",
    "config=",
    "noudevsync",
    "nohints",
    "devicesfile=",
    "nolocking",
]


def parse(command: str, args: Sequence[str], short: str, long: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    try:
        return options(command, args, SHORT + short, [*LONG, *long])
    except Failure as failure:
        text = failure.message.split("\n")[0]
        raise Failure(f"{text}\n  Error during parsing of command line.", USAGE_STATUS) from None


def attributes(volume: Volume) -> str:
    """The ten letters of lv_attr."""
    kind = {"pool": "t", "thin": "V", "thick": "-"}[volume.kind]
    target = "-" if volume.kind == "thick" else "t"
    active = "a" if volume.active else "-"
    opened = "o" if volume.mounted_at or volume.opened_by else "-"
    if volume.kind == "pool":
        opened = "o" if any(v.active for v in volume.group.thins(volume.name)) else "-"
    zero = "z" if volume.kind != "thick" else "-"
    skip = "k" if volume.skip_activation else "-"
    full = volume.kind == "pool" and volume.group.pool_free_bytes(volume.name) == 0
    return f"{kind}wi-{active}{opened}{target}{zero}{'D' if full else '-'}{skip}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


class Report:
    """Values of report fields; sizes in the unit that was asked for."""

    def __init__(self, process: Process, units: str, *, suffix: bool) -> None:
        self._process = process
        self._units = units.lower()
        self._suffix = suffix

    def size(self, count: int) -> str:
        if self._units in UNITS:
            tail = (self._units.upper() if self._units == "b" else self._units) if self._suffix else ""
            shown = str(count) if self._units in "bs" else f"{count / UNITS[self._units]:.2f}"
            if self._units == "s":
                shown = str(count // 512)
            return shown + tail
        for letter in "tgmk":
            if count >= UNITS[letter]:
                return f"{count / UNITS[letter]:.2f}{letter if self._suffix else ''}"
        return "0 " if count == 0 else f"{count}B"

    def vg(self, group: VolumeGroup) -> dict[str, str]:
        return {
            "vg_fmt": "lvm2",
            "vg_uuid": lvm_uuid(f"{self._process.machine.name}/{group.name}"),
            "vg_name": group.name,
            "vg_attr": "wz--n-",
            "vg_permissions": "writeable",
            "vg_extendable": "extendable",
            "vg_autoactivation": "enabled",
            "vg_allocation_policy": "normal",
            "vg_size": self.size(group.size_bytes),
            "vg_free": self.size(group.free_bytes),
            "vg_extent_size": self.size(EXTENT_BYTES),
            "vg_extent_count": str(group.extents),
            "vg_free_count": str(group.free_bytes // EXTENT_BYTES),
            "max_lv": "0",
            "max_pv": "0",
            "pv_count": "1",
            "vg_missing_pv_count": "0",
            "lv_count": str(len(group.volumes)),
            "snap_count": str(0),
            "vg_seqno": str(group.seqno),
            "vg_mda_count": "1",
            "vg_mda_used_count": "1",
            "vg_mda_free": self.size(507 << 10),
            "vg_mda_size": self.size(1020 << 10),
            "vg_mda_copies": "unmanaged",
        }

    def pv(self, group: VolumeGroup) -> dict[str, str]:
        used = group.size_bytes - group.free_bytes
        return {
            "pv_fmt": "lvm2",
            "pv_uuid": lvm_uuid(f"{self._process.machine.name}/{group.name}/pv"),
            "dev_size": self.size(group.size_bytes + EXTENT_BYTES),
            "pv_name": "/dev/sda2",
            "pv_major": "8",
            "pv_minor": "2",
            "pv_mda_free": self.size(507 << 10),
            "pv_mda_size": self.size(1020 << 10),
            "pv_ext_vsn": "2",
            "pe_start": self.size(1 << 20),
            "pv_size": self.size(group.size_bytes),
            "pv_free": self.size(group.free_bytes),
            "pv_used": self.size(used),
            "pv_attr": "a--",
            "pv_allocatable": "allocatable",
            "pv_pe_count": str(group.extents),
            "pv_pe_alloc_count": str(used // EXTENT_BYTES),
            "pv_mda_count": "1",
            "pv_mda_used_count": "1",
            "pv_ba_start": self.size(0),
            "pv_ba_size": self.size(0),
            "pv_in_use": "used",
        }

    def lv(self, volume: Volume) -> dict[str, str]:
        group = volume.group
        layout = {"pool": "thin,pool", "thin": "thin,sparse", "thick": "linear"}[volume.kind]
        role = "private" if volume.kind == "pool" else "public"
        role += ",origin,thinorigin" if any(v.origin == volume.name for v in group.volumes.values()) else ""
        role += ",snapshot,thinsnapshot" if volume.origin else ""
        pool = volume.kind == "pool"
        opened = bool(volume.mounted_at or volume.opened_by)
        escaped = f"{group.name.replace('-', '--')}-{volume.name.replace('-', '--')}"
        origin = group.volumes.get(volume.origin)
        return {
            "lv_uuid": volume.uuid,
            "lv_name": volume.name,
            "vg_name": group.name,
            "lv_full_name": volume.full_name,
            "lv_path": "" if pool else volume.path,
            "lv_dm_path": f"/dev/mapper/{escaped}",
            "lv_layout": layout,
            "lv_role": role,
            "lv_allocation_policy": "inherit",
            "lv_skip_activation": "skip activation" if volume.skip_activation else "",
            "lv_autoactivation": "enabled",
            "lv_when_full": "queue" if pool else "",
            "lv_active": "active" if volume.active else "",
            "lv_active_locally": "active locally" if volume.active else "",
            "lv_active_exclusively": "active exclusively" if volume.active else "",
            "lv_major": "-1",
            "lv_minor": "-1",
            "lv_read_ahead": "auto",
            "lv_size": self.size(volume.size_bytes),
            "lv_metadata_size": self.size(group.metadata_bytes(volume)) if pool else "",
            "seg_count": "1",
            "origin": volume.origin,
            "origin_uuid": origin.uuid if origin else "",
            "origin_size": self.size(origin.size_bytes) if origin else "",
            "lv_ancestors": volume.origin,
            "data_lv": f"[{volume.name}_tdata]" if pool else "",
            "metadata_lv": f"[{volume.name}_tmeta]" if pool else "",
            "pool_lv": volume.pool,
            "pool_lv_uuid": group.volumes[volume.pool].uuid if volume.pool in group.volumes else "",
            "lv_tags": ",".join(sorted(volume.tags)),
            "lv_time": time.strftime("%Y-%m-%d %H:%M:%S +0000", time.gmtime(volume.created_at)),
            "lv_host": self._process.machine.name,
            "lv_modules": "" if volume.kind == "thick" else "thin-pool" if pool else "thin,thin-pool",
            "lv_kernel_major": "253" if volume.active else "-1",
            "lv_kernel_minor": str(list(group.volumes).index(volume.name)) if volume.active else "-1",
            "lv_permissions": "writeable",
            "lv_live_table": "live table present" if volume.active else "live table not present",
            "lv_device_open": "open" if opened else "",
            "data_percent": _percent(group.data_percent(volume)),
            "metadata_percent": _percent(group.metadata_percent(volume)),
            "lv_health_status": "out_of_data" if pool and not group.pool_free_bytes(volume.name) else "",
            "lv_attr": attributes(volume),
        }

    def seg(self, volume: Volume) -> dict[str, str]:
        thin, pool = volume.kind == "thin", volume.kind == "pool"
        extents = volume.size_bytes // EXTENT_BYTES
        return {
            "segtype": {"pool": "thin-pool", "thin": "thin", "thick": "linear"}[volume.kind],
            "stripes": "0" if thin else "1",
            "data_stripes": "0" if thin else "1",
            "chunk_size": self.size(CHUNK_BYTES if pool else 0),
            "thin_count": str(sum(1 for _ in volume.group.thins(volume.name))) if pool else "",
            "discards": "passdown" if pool else "",
            "zero": "zero" if pool else "unknown",
            "thin_id": str(volume.thin_id) if thin else "",
            "seg_start": self.size(0),
            "seg_start_pe": "0",
            "seg_size": self.size(volume.size_bytes),
            "seg_size_pe": str(extents),
            "devices": f"{volume.name}_tdata(0)" if pool else "" if thin else "/dev/sda2(0)",
            "lv_uuid": volume.uuid,
        }


DEFAULTS = {
    "lvs": "lv_name,vg_name,lv_attr,lv_size,pool_lv,origin,data_percent,metadata_percent,move_pv,mirror_log,"
    "copy_percent,convert_lv",
    "vgs": "vg_name,pv_count,lv_count,snap_count,vg_attr,vg_size,vg_free",
    "pvs": "pv_name,vg_name,pv_fmt,pv_attr,pv_size,pv_free",
}
ALIASES = {"name": "lv_name", "attr": "lv_attr", "size": "lv_size", "tags": "lv_tags", "uuid": "lv_uuid"}
SPECIAL = {"lv": LV_FIELDS, "vg": VG_FIELDS, "pv": PV_FIELDS, "seg": SEG_FIELDS, "pvseg": PVSEG_FIELDS}


def _columns(kind: str, wanted: Sequence[str], default: Sequence[str]) -> list[str]:
    """Field names for a report of `kind`; `-o +x` adds to the default."""
    columns: list[str] = []
    for text in wanted:
        if text.startswith("+"):
            columns = columns or list(default)
        for name in text.lstrip("+").split(","):
            name = ALIASES.get(name, name).replace(f"{kind}_{kind}_", f"{kind}_")
            if name in ("all", f"{kind}_all"):
                columns += SPECIAL[kind]
            elif any(name in fields for fields in SPECIAL.values()):
                columns.append(name)
            elif f"{kind}_{name}" in SPECIAL[kind]:
                columns.append(f"{kind}_{name}")
            else:
                raise LvmError(f"Unrecognised field: {name}")
    return list(dict.fromkeys(columns or default))


def _rows(kind: str, report: Report, group: VolumeGroup, only: str) -> list[dict[str, str]]:
    if kind == "vg":
        return [report.vg(group)]
    if kind == "pv":
        return [report.pv(group) | {"vg_name": group.name}]
    if kind == "pvseg":
        used = (group.size_bytes - group.free_bytes) // EXTENT_BYTES
        return [{"pvseg_start": "0", "pvseg_size": str(used)}]
    volumes = [v for name, v in sorted(group.volumes.items()) if only in ("", name)]
    if kind == "seg":
        return [report.lv(v) | report.seg(v) for v in volumes]
    of_group = report.vg(group)
    return [of_group | report.seg(v) | report.lv(v) for v in volumes]


def _json(value: object) -> str:
    """lvm's own layout: one row a line, the colon without spaces."""
    assert isinstance(value, list)
    blocks = []
    for report in value:
        tables = []
        for kind, rows in report.items():
            lines = ",\n".join(
                "                  " + json.dumps(row, separators=(", ", ":"), ensure_ascii=False) for row in rows
            )
            tables.append(f'              "{kind}": [\n{lines}\n              ]'.replace("[\n\n", "[\n"))
        blocks.append("          {\n" + "\n              ,\n".join(tables) + "\n          }")
    return '  {\n      "report": [\n' + "\n          ,\n".join(blocks) + "\n      ]\n  }\n"


REPORT_LONG = [
    "reportformat=",
    "units=",
    "nosuffix",
    "noheadings",
    "options=",
    "configreport=",
    "separator=",
    "all",
    "select=",
    "sort=",
    "readonly",
    "unquoted",
    "binary",
]


def report_text(process: Process, command: str, args: Sequence[str]) -> str:
    """One of lvs, vgs, pvs, fullreport."""
    # In fullreport, -o belongs to the --configreport before it: read them in order.
    per_kind: dict[str, list[str]] = {}
    # A list of fields before the first --configreport belongs to no table of a fullreport.
    current = {"lvs": "lv", "vgs": "vg", "pvs": "pv"}.get(command, "")
    ordered = list(args)
    for index, word in enumerate(ordered):
        if word == "--configreport" and index + 1 < len(ordered):
            current = ordered[index + 1]
        elif word in ("-o", "--options") and index + 1 < len(ordered):
            per_kind.setdefault(current, []).append(ordered[index + 1])
        elif word.startswith("-o") and len(word) > 2:
            per_kind.setdefault(current, []).append(word[2:])
        elif word.startswith("--options="):
            per_kind.setdefault(current, []).append(word.partition("=")[2])
    found, rest = parse(command, args, "o:aS:O:", REPORT_LONG)
    form = last(found, "--reportformat") or "basic"
    if form not in ("basic", "json"):
        raise LvmError(f"Invalid argument for --reportformat: {form}\n  Error during parsing of command line.", 3)
    report = Report(process, last(found, "--units") or "h", suffix=not given(found, "--nosuffix"))
    lvm = process.machine.lvm
    chosen = []
    for name in rest:
        group_name, _, volume = name.removeprefix("/dev/").partition("/")
        if volume:
            lvm.find(name)
        chosen.append((lvm.group(group_name), volume))
    everything = [(group, "") for group in lvm.groups.values() if not group.missing]
    chosen = chosen or everything
    if command == "fullreport":
        reports = []
        for group, _ in chosen:
            tables = {}
            for kind, fields in (
                ("vg", VG_FIELDS),
                ("pv", PV_FIELDS),
                ("lv", LV_FIELDS),
                ("pvseg", PVSEG_FIELDS),
                ("seg", SEG_FIELDS),
            ):
                columns = _columns(kind, per_kind.get(kind, []), fields)
                tables[kind] = [_pick(row, columns) for row in _rows(kind, report, group, "")]
            reports.append(tables)
        return _json(reports)
    kind = {"lvs": "lv", "vgs": "vg", "pvs": "pv"}[command]
    columns = _columns(kind, per_kind.get(kind, []), DEFAULTS[command].split(","))
    rows = [_pick(row, columns) for group, only in chosen for row in _rows(kind, report, group, only)]
    if form == "json":
        return _json([{kind: rows}])
    return _table(columns, rows, headings=not given(found, "--noheadings"), separator=last(found, "--separator"))


HEADINGS = {
    "lv_name": "LV",
    "vg_name": "VG",
    "lv_attr": "Attr",
    "lv_size": "LSize",
    "pool_lv": "Pool",
    "origin": "Origin",
    "data_percent": "Data%",
    "metadata_percent": "Meta%",
    "move_pv": "Move",
    "mirror_log": "Log",
    "copy_percent": "Cpy%Sync",
    "convert_lv": "Convert",
    "pv_count": "#PV",
    "lv_count": "#LV",
    "snap_count": "#SN",
    "vg_attr": "Attr",
    "vg_size": "VSize",
    "vg_free": "VFree",
    "lv_tags": "LV Tags",
}


def _table(columns: Sequence[str], rows: Sequence[dict[str, str]], *, headings: bool, separator: str | None) -> str:
    cells = [[HEADINGS.get(c, c) for c in columns]] if headings and rows else []
    cells += [[row[c] for c in columns] for row in rows]
    widths = [max((len(line[i]) for line in cells), default=0) for i in range(len(columns))]
    if separator is not None:
        return "".join("  " + separator.join(line) + "\n" for line in cells)
    return "".join("  " + " ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + "\n" for line in cells)


def _pick(row: dict[str, str], columns: Sequence[str]) -> dict[str, str]:
    return {column: row.get(column, "") for column in columns}
