"""A site of nginx in front of the boot server, for many machines at once. Pure; printed by `vcrecon boot show --nginx`.

nginx serves images and the installer from the disk, with ranges, and passes the rest on to vcrecon on loopback, with
the machine's own address in X-Real-IP. vcrecon listens there when site.yaml says so by `nginx_port`.
"""

from __future__ import annotations

import re
from pathlib import Path

from vcrecon.errors import Refused
from vcrecon.spec.model import Provisioning, Spec

LOOPBACK = "127.0.0.1"
PORT = 8068
"""Where vcrecon listens behind nginx, unless site.yaml names another port."""
_PLAIN = re.compile(r"(?:/[A-Za-z0-9_+@=-][A-Za-z0-9._+@=-]*)+")
_BODY = "64k"


def proxied(provisioning: Provisioning) -> tuple[str, int]:
    """Where vcrecon listens behind nginx."""
    return LOOPBACK, provisioning.nginx_port or PORT


def render(spec: Spec) -> str:
    """The text of a file for /etc/nginx/sites-enabled. Raises Refused for a directory that nginx would misread."""
    provisioning = spec.site.provisioning
    where = ":".join(map(str, proxied(provisioning)))
    images = provisioning.images
    if not _PLAIN.fullmatch(str(images)):
        raise Refused(f"{images}: the path of provisioning.images must be absolute and plain for nginx; rename it")
    return f"""\
# Made by vcrecon for the site {spec.site.name}. vcrecon itself listens on {where} only, once site.yaml has
# `nginx_port: {proxied(provisioning)[1]}` under provisioning.
# {images} must be readable by nginx's own user (below /var/lib/vcrecon it is not: set provisioning.images).
server {{
    listen {provisioning.address}:{provisioning.port};
    server_tokens off;
    access_log off;
    allow {provisioning.network};
    deny all;
    client_max_body_size {_BODY};
    default_type application/octet-stream;

    # Hidden files are nobody's business.
    location ~ /\\. {{ return 404; }}
{_directory("images", images)}{_files("installer", images / "installer", ("vmlinuz", "initrd"))}
    location / {{
        proxy_pass http://{where};
        proxy_http_version 1.1;
        proxy_set_header Host $host;
        # Overwritten, never added to: whom vcrecon believes depends on it.
        proxy_set_header X-Real-IP $remote_addr;
        proxy_read_timeout 60s;
    }}
}}
"""


def _directory(name: str, directory: Path) -> str:
    return f"""
    location /{name}/ {{
        alias {directory}/;
        types {{ }}
        autoindex off;
        disable_symlinks on from={directory};
        sendfile on;
        limit_except GET {{ deny all; }}
    }}
"""


def _files(name: str, directory: Path, files: tuple[str, ...]) -> str:
    return "".join(
        f"""
    location = /{name}/{file} {{
        alias {directory}/{file};
        types {{ }}
        sendfile on;
        limit_except GET {{ deny all; }}
    }}
"""
        for file in files
    )
