"""The five spec files as people write them: one pydantic model a file, and their JSON Schema.

`spec.load` validates the YAML against these; `spec.expand` turns them into the frozen models of `spec.model`;
`vcrecon schema` prints `json_schema()` for editors. Fields that may hold a range stay text here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic.json_schema import models_json_schema

from vcrecon.spec import values

NODES_PER_GROUP_MAX = 4000
MEMORY_BYTES_MIN = 32 << 20
DISK_BYTES_MIN = 64 << 20
SYSTEM_BYTES_MIN = 1 << 30


def _at_least(minimum_bytes: int, what: str) -> AfterValidator:
    def check(count: int) -> int:
        if count < minimum_bytes:
            floor = values.human_bytes(minimum_bytes)
            raise ValueError(f"{what} of {count} bytes is below {floor}; is a unit missing, such as GiB?")
        return count

    return AfterValidator(check)


def _sha256(text: str) -> str:
    if len(text) != 64 or not set(text.lower()) <= set("0123456789abcdef"):
        raise ValueError(f"expected 64 hexadecimal digits (a SHA-256), found {values.shorten(text)}")
    return text.lower()


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        raise ValueError(f"{values.shorten(text)} is not a URL") from None
    if parts.scheme not in {"http", "https"} or not host:
        raise ValueError(f"{values.shorten(text)} must be a URL that begins with http:// or https://")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a URL must not hold a user or password: it ends up in logs and process lists")
    if not text.isascii() or any(character.isspace() or character in "'\"\\`$<>" for character in text):
        raise ValueError(f"{values.shorten(text)} holds characters that a URL must write as %XX")
    return text


def _endpoint(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not all(part.isalnum() or part == "-" for part in host.replace(".", "")):
        raise ValueError(f"expected host:port, found {values.shorten(text)}")
    values.port(port)
    return text


def _one_line(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError("expected one line of printable text")
    return text


def _public_key(text: str) -> str:
    kind, _, rest = _one_line(text).partition(" ")
    if not kind.startswith(("ssh-", "ecdsa-", "sk-")) or not rest.strip():
        raise ValueError("expected a public key line such as 'ssh-ed25519 AAAA… name'")
    return text


def _a_list(value: Any) -> Any:
    """Nothing stands for no entries, and a single mapping for a list of one."""
    if value is None:
        return []
    return [value] if isinstance(value, dict) else value


def _a_mapping(value: Any) -> Any:
    return {} if value is None else value


def _words(value: Any) -> Any:
    """A single word for a list of one, and nothing for none."""
    if value is None:
        return []
    return [value] if isinstance(value, str) else value


def _paths(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _ranged(value: Any) -> Any:
    """YAML reads `[01-26]` as a list of one word; here it is the range that it looks like."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
        return f"[{value[0]}]"
    return value


def _schema(**schema: Any) -> WithJsonSchema:
    return WithJsonSchema(schema)


_SIZE_SCHEMA = _schema(
    anyOf=[
        {"type": "integer", "minimum": 1, "description": "bytes"},
        {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)? ?(KiB|MiB|GiB|TiB)$"},
    ],
    description="a size such as 512MiB or 4GiB; a plain number is bytes",
)
Memory = Annotated[int, BeforeValidator(values.size_bytes), _at_least(MEMORY_BYTES_MIN, "a memory"), _SIZE_SCHEMA]
Disk = Annotated[int, BeforeValidator(values.size_bytes), _at_least(DISK_BYTES_MIN, "a disk"), _SIZE_SCHEMA]
SystemDisk = Annotated[
    int, BeforeValidator(values.size_bytes), _at_least(SYSTEM_BYTES_MIN, "a system's volume"), _SIZE_SCHEMA
]
Size = Annotated[int, BeforeValidator(values.size_bytes), Field(ge=0), _SIZE_SCHEMA]
Seconds = Annotated[
    float,
    BeforeValidator(values.seconds),
    Field(gt=0, le=86400),
    _schema(anyOf=[{"type": "number"}, {"type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?[smh]?$"}]),
]
Ranged = Annotated[
    str,
    BeforeValidator(_ranged),
    _schema(
        anyOf=[{"type": "string"}, {"type": "integer"}, {"type": "array", "maxItems": 1}],
        description="a value, or a range such as c[01-64]",
    ),
]
Port = Annotated[int, Field(ge=1, le=65535)]
Sha256 = Annotated[str, AfterValidator(_sha256)]
Url = Annotated[str, AfterValidator(_url)]
Line = Annotated[str, AfterValidator(_one_line)]
VlanId = Annotated[int, BeforeValidator(lambda value: values.vlan_id(str(value))), Field(ge=1, le=4094)]
Mac = Annotated[str, AfterValidator(values.mac)]
Cores = Annotated[int, Field(ge=1, le=1024)]
LvmName = Annotated[str, AfterValidator(values.lvm_name)]
LinkName = Annotated[str, AfterValidator(values.link_name)]
UserName = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_-]{0,31}$")]
HookPaths = Annotated[
    tuple[Line, ...],
    BeforeValidator(_paths),
    _schema(anyOf=[{"type": "string"}, {"type": "array", "items": {"type": "string"}}]),
]
RoleName = Literal["head", "node", "single"]


KernelArgs = Annotated[str, AfterValidator(values.kernel_args)]
PackageName = Annotated[str, AfterValidator(values.package_name)]
Component = Literal["main", "contrib", "non-free", "non-free-firmware"]


class Text(BaseModel):
    """Base of all models of the text: unknown keys are errors, `null` collections are empty."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ArtifactText(Text):
    url: Url
    sha256: Sha256


class ImageText(Text):
    root: ArtifactText
    disk: Disk = Field(description="size of the golden volume: the smallest disk of a guest of this image")
    kernel: ArtifactText | None = None
    initrd: ArtifactText | None = None
    cmdline: Line | None = None


class SystemText(Text):
    """A system image of containers, as `vcrecon image build container` makes it."""

    root: ArtifactText
    hypervisor: Literal["kvm", "xen"] = "kvm"
    cmdline: Line | None = Field(None, description="the kernel's command line; consoles when left out")


class BuildText(Text):
    """What `vcrecon image build` makes an image from, beside what every image of its kind has."""

    kind: Literal["container", "guest", "installer"]
    hypervisor: Literal["kvm", "xen"] | None = Field(None, description="of a container; kvm when left out")
    suite: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")] = Field("bookworm", description="the release of Debian")
    components: Annotated[tuple[Component, ...], BeforeValidator(_words)] = Field(
        ("main",), description="parts of Debian's archive; firmware is in non-free-firmware"
    )
    packages: Annotated[tuple[PackageName, ...], BeforeValidator(_words)] = Field((), description="further packages")


class ProvisioningText(Text):
    """The network that containers are reached on, and installed over when `mode` is not off."""

    network: str = Field(description="the subnet that the containers' own addresses are in, as CIDR")
    mode: Literal["off", "managed", "external"] = Field(
        "off", description="managed: vcrecon runs DHCP, TFTP and HTTP; external: HTTP only; off: installs by hand"
    )
    interface: LinkName | None = Field(None, description="the master's interface on this network")
    address: str | None = Field(None, description="the master's own address on this network")
    port: Port = Field(8067, description="of the boot server's HTTP")
    nginx_port: Port | None = Field(
        None, description="of 127.0.0.1, where vcrecon listens behind nginx; see `vcrecon boot show --nginx`"
    )
    gateway: str | None = None
    dns: Annotated[tuple[str, ...], BeforeValidator(_words)] = ()
    strangers: tuple[str, str] | None = Field(
        None, description="first and last address for machines that no container has the MAC of"
    )
    images: Line = Field("/var/lib/vcrecon/images", description="directory of the files that are served")
    install_deadline: Seconds = 1800.0
    root_password: Line | None = Field(None, description="file with a crypt(3) hash, for root on containers")
    kernel_args: KernelArgs = Field(
        "", description="further words for the installer's kernel; consoles are those of the system that is installed"
    )


class SshText(Text):
    user: UserName = "root"
    key: Line = Field(description="private key file; relative to the spec directory, ~ is your home")
    known_hosts: Line = "known_hosts"


class ServiceText(Text):
    """A service that guests reach on their own container's masqueraded address."""

    address: str
    port: Port
    to: Annotated[str, AfterValidator(_endpoint)] = Field(description="host:port as a container reaches it")


class AllowText(Text):
    to: str = Field(description="subnet (CIDR) that may be reached")
    tcp: Annotated[tuple[Port, ...], BeforeValidator(_a_list)] = ()
    udp: Annotated[tuple[Port, ...], BeforeValidator(_a_list)] = ()
    roles: tuple[RoleName, ...] = Field(("head", "single"), min_length=1)


class NetworkText(Text):
    vlan: VlanId
    subnet: str
    gateway: str | None = None
    allow: Annotated[list[AllowText], BeforeValidator(_a_list)] = []


class LimitsText(Text):
    installs: int = Field(16, ge=1, le=10_000)
    image_transfers: int = Field(16, ge=1, le=10_000)
    moves: int = Field(4, ge=1, le=10_000)
    starts_per_container: int = Field(1, ge=1, le=1000)
    disruption_fraction: float = Field(0.2, gt=0, le=1)
    disruption_min: int = Field(2, ge=1, le=10_000)


class PoliciesText(Text):
    on_poweroff: Literal["restart", "honour"] = "restart"
    stop_grace: Seconds = 60.0
    boot_deadline: Seconds = 300.0
    hook_deadline: Seconds = 60.0
    storage: Literal["thin", "thick"] = "thin"


class GuestFields(Text):
    """What a guest, its template, its group and the site's defaults can say; the nearest one wins."""

    image: str | None = None
    memory: Memory | None = None
    cores: Cores | None = None
    disk: Disk | None = Field(None, description="the image's own size when left out")
    root_password: Line | None = Field(
        None, description="file with a crypt(3) hash, relative to the spec directory; may hold {cluster}"
    )
    authorized_keys: tuple[Annotated[str, AfterValidator(_public_key)], ...] | None = None
    storage: Literal["thin", "thick"] | None = None
    on_poweroff: Literal["restart", "honour"] | None = None
    hooks: HookPaths | None = Field(
        None, description="scripts, or directories of them, that finish the guest's file system; in order"
    )


class SiteFile(Text):
    """site.yaml: what holds for the whole site."""

    site: str
    session: Literal["preparing", "running"] = "running"
    provisioning: ProvisioningText
    ssh: SshText
    services: Annotated[dict[str, ServiceText], BeforeValidator(_a_mapping)] = {}
    networks: Annotated[dict[str, NetworkText], BeforeValidator(_a_mapping)] = {}
    limits: LimitsText = LimitsText()
    policies: PoliciesText = PoliciesText()
    defaults: GuestFields = GuestFields()


class ImagesFile(Text):
    """images.yaml: the guest images, the systems that containers are installed with, and what both are built from."""

    images: Annotated[dict[str, ImageText], BeforeValidator(_a_mapping)]
    systems: Annotated[dict[str, SystemText], BeforeValidator(_a_mapping)] = {}
    builds: Annotated[dict[str, BuildText], BeforeValidator(_a_mapping)] = {}


class DiskMatchText(Text):
    """A kind of disk that an install may use; all that is given must fit."""

    model: Line = Field("*", description="a shell pattern")
    serial: Line = Field("*", description="a shell pattern")
    min: Size = 0
    max: Size | None = None


class DisksText(Text):
    """How an install uses a machine's disks."""

    raid: Literal["auto", "mirror", "single"] | None = Field(
        None, description="auto (the default): two like disks are mirrored, else the best one is used"
    )
    root: SystemDisk | None = Field(None, description="the system's own volume; 8GiB when left out")
    swap: Size | None = None
    match: Annotated[tuple[DiskMatchText, ...], BeforeValidator(_a_list)] | None = Field(
        None, description="which disks may be used; every healthy one when left out"
    )


class PowerText(Text):
    """How a container is switched on and off by wire."""

    kind: Literal["redfish", "ipmi", "manual"] | None = None
    address: Ranged | None = Field(None, description="the URL of the Redfish service, or the host that speaks IPMI")
    credentials: Line | None = Field(None, description="file with user:password, mode 0600")
    ca: Line | None = Field(None, description="certificate that the Redfish service is trusted by")


class ContainerFields(Text):
    """What a container, its template and the defaults can say; the nearest one wins."""

    port: Ranged | None = None
    hypervisor: Literal["kvm", "xen"] | None = None
    memory: Memory | None = Field(None, description="memory for guests; leave 1 to 2 GiB to the host")
    cores: Cores | None = None
    disk: Disk | None = Field(None, description="space for guests in the volume group")
    trunk: LinkName | None = Field(None, description="interface that carries the VLANs")
    volume_group: LvmName | None = None
    pool: LvmName | None = None
    generation: Line | None = Field(None, description="generation of the container's own system image")
    system: str | None = Field(None, description="what it is installed with: one of 'systems' in images.yaml")
    disks: DisksText | None = None
    power: PowerText | None = None


class ContainerText(ContainerFields):
    name: Ranged
    address: Ranged
    mac: Ranged | None = Field(None, description="of the interface on the provisioning network")
    macs: tuple[Ranged, ...] | None = Field(None, description="the same for a range, in the order of the names")
    template: str | None = None


class ContainersFile(Text):
    """containers.yaml: the physical hosts."""

    templates: Annotated[dict[str, ContainerFields], BeforeValidator(_a_mapping)] = {}
    defaults: ContainerFields = ContainerFields()
    containers: Annotated[list[ContainerText], BeforeValidator(_a_list)]


class HeadText(GuestFields):
    """The head node of every cluster of an entry; ranges are as long as the entry's name."""

    template: str | None = None
    address: Ranged | None = Field(None, description="host 1 of the subnet when left out")
    mac: Ranged | None = Field(None, description="derived from VLAN and address when left out")
    networks: Annotated[dict[str, Ranged], BeforeValidator(_a_mapping)] = Field(
        {}, description="extra networks: name to address"
    )
    pinned: Ranged | None = None


class GroupText(GuestFields):
    """Nodes that are alike; a cluster may have several groups."""

    template: str | None = None
    count: int = Field(1, ge=1, le=NODES_PER_GROUP_MAX)
    name: str = Field("n", description="guests are called CLUSTER-NAME1, CLUSTER-NAME2, …")
    addresses: tuple[Ranged, ...] | None = Field(None, description="hosts 11, 12, … when left out")
    macs: tuple[Ranged, ...] | None = None
    networks: Annotated[dict[str, Ranged], BeforeValidator(_a_mapping)] = {}


class ClusterText(Text):
    name: Ranged
    vlan: Ranged
    subnet: Ranged
    head: HeadText | None = None
    nodes: Annotated[list[GroupText], BeforeValidator(_a_list)] = []


class InterfaceText(Text):
    """One interface of a guest: on a `vlan` with an `ip`, or on a named `network` with an `address`."""

    mac: Mac | None = None
    vlan: VlanId | None = None
    ip: str | None = None
    network: str | None = None
    address: str | None = None


class GuestText(GuestFields):
    name: str
    template: str | None = None
    cluster: str | None = None
    role: RoleName | None = None
    interfaces: Annotated[list[InterfaceText], BeforeValidator(_a_list)] = []
    networks: Literal["all-clusters"] | None = None
    host_number: int = Field(250, ge=1, le=4095, description="its address in every cluster's subnet")
    pinned: str | None = None


class ClustersFile(Text):
    """clusters.yaml: every guest."""

    templates: Annotated[dict[str, GuestFields], BeforeValidator(_a_mapping)] = {}
    clusters: Annotated[list[ClusterText], BeforeValidator(_a_list)] = []
    guests: Annotated[list[GuestText], BeforeValidator(_a_list)] = []


class DeploymentFile(Text):
    """deployment.yaml: which container holds which guests. Edit this one to move guests."""

    deployment: Annotated[
        dict[str, Annotated[tuple[str, ...], BeforeValidator(lambda value: () if value is None else value)]],
        BeforeValidator(_a_mapping),
    ] = {}
    cordoned: Annotated[tuple[str, ...], BeforeValidator(lambda value: () if value is None else value)] = ()


FILES: dict[str, type[Text]] = {
    "site.yaml": SiteFile,
    "images.yaml": ImagesFile,
    "containers.yaml": ContainersFile,
    "clusters.yaml": ClustersFile,
    "deployment.yaml": DeploymentFile,
}


def json_schema() -> dict[str, Any]:
    """JSON Schema of all five files: one definition a file in `$defs`, file names in `properties`."""
    references, definitions = models_json_schema(
        [(model, "validation") for model in FILES.values()],
        title="vcrecon spec",
        description="The files of a vcrecon spec directory.",
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **definitions,
        "type": "object",
        "properties": {name: references[model, "validation"] for name, model in FILES.items()},
    }
