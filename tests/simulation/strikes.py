"""What happens to a classroom: faults of hosts, wires, disks and processes, and the wishes of people. All by dice.

Each strike is one method; its docstring says what it is in the real world. It tells the classroom and the truth what
a person who caused it would know, and returns words for the history. LookupError means that there was nothing to do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tests.simulation.stories import Stories

from vcrecon.errors import HostError, Refused, SpecError


class Strikes(Stories):
    """All of them, each with its odds."""

    def table(self) -> dict[Callable[[], Awaitable[str]], int]:
        """Each with its weight."""
        return {
            self.kill_guest: 5, self.shut_down_guest: 2, self.reboot_guest: 1, self.crash_again_and_again: 1,
            self.deafen_guest: 2, self.namesake: 1, self.rot: 2, self.cut: 4, self.partition: 3, self.mend: 4,
            self.power_off: 4, self.power_on: 4, self.reboot: 4, self.netboot: 2, self.wipe_bridge: 2,
            self.delete_vlan: 2, self.flush_rules: 2, self.restart_libvirtd: 2, self.fail_command: 6,
            self.fail_long: 2, self.hang_command: 4, self.slow: 2, self.garbage: 2, self.lose_message: 10,
            self.slow_wire: 1, self.no_more_channels: 1, self.change_host_key: 2, self.corrupt_image: 3,
            self.fill_pool: 2, self.fill_root: 1, self.lose_disk: 1, self.crash_service: 5, self.crash_soon: 6,
            self.restart_blind: 4, self.restart_service: 1, self.lose_record: 3, self.second_service: 2,
            self.jump_clock: 2, self.fill_record_disk: 1, self.move: 10, self.move_many: 4, self.revert: 3,
            self.remove: 3, self.add: 3, self.change_image: 3, self.begin_class: 1, self.move_and_back: 4,
            self.resize: 1, self.drop_container: 2, self.spoil_files: 5, self.mend_files: 3, self.pause: 1,
            self.resume: 2, self.rebuild: 3, self.prune: 2, self.confirm: 2, self.rescue: 2, self.release: 2,
            self.fence: 5, self.power_fence: 2, self.change_switch: 1, self.reinstall: 3,
        }  # fmt: skip

    def stories(self) -> dict[Callable[[], Awaitable[str]], int]:
        """The same of the stories."""
        return {
            self.hidden_from_a_new_service: 4, self.blind_move: 3, self.reverted_after_the_copy: 2,
            self.moved_after_class: 2, self.moved_with_rot: 1, self.reverted_while_copying: 1, self.copies_in_vain: 2,
            self.namesake_beside_its_disk: 2, self.held_and_forgotten: 1, self.taken_for_dead: 4,
            self.power_fence_in_vain: 4, self.partition_and_edit: 4, self.reinstalled_meanwhile: 3,
            self.install_in_vain: 3, self.lose_disk_and_fall: 2, self.no_room: 2, self.bad_image: 3,
            self.large_edits: 3, self.dropped_after_an_action: 2, self.no_ping: 2, self.mute_host: 2,
            self.switched_off_in_peace: 2, self.fails_for_all_lives: 1, self.two_at_work: 1, self.crashes_for_long: 2,
        }  # fmt: skip

    async def strike(self) -> None:
        """One strike; one that finds nothing, or is refused, makes place for another."""
        await self._one_of(self.table())

    async def tell(self, name: str = "") -> None:
        """One story, that one or any, in the same way."""
        await self._one_of({getattr(self, name): 1} if name else self.stories())

    async def _one_of(self, table: dict[Callable[[], Awaitable[str]], int]) -> None:
        for strike in self.rng.choices(list(table), list(table.values()), k=12):
            name = strike.__name__
            self.room.note(f"{name} …")
            try:
                self.room.note(f"{name} {await strike()}")
                return
            except (LookupError, Refused, SpecError, HostError) as error:
                self.room.note(f"{name}: {error}")
                if len(table) == 1:
                    return
