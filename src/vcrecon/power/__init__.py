"""Containers' power controllers: on, off, netboot. Used by the controller and the commands that fence or install.

A power controller is believed only in what it shows afterwards: real ones answer "done" to what they ignored.
"""

from __future__ import annotations

from vcrecon.power.switch import Patience, PowerState, PowerSwitch
from vcrecon.spec.model import Power

__all__ = ["Patience", "PowerState", "PowerSwitch", "power_switch"]


def power_switch(
    power: Power, name: str, *, uefi: bool = False, patience: Patience | None = None
) -> PowerSwitch | None:
    """The switch of container `name`, or None when it is switched by hand. Nothing is sent or read yet.

    `uefi`: how the machine boots, as its last netboot showed; IPMI must be told, Redfish services know.
    """
    # Imported when asked for: a site without such controllers need not pay for the libraries.
    match power.kind:
        case "manual":
            return None
        case "redfish":
            from vcrecon.power.redfish import RedfishSwitch

            return RedfishSwitch(power, name, patience=patience or Patience())
        case "ipmi":
            from vcrecon.power.ipmi import IpmiSwitch

            return IpmiSwitch(power, name, uefi=uefi, patience=patience or Patience())
