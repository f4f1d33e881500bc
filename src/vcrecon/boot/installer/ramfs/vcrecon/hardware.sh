# Drivers, the kernel's command line, and the network. Called by init and install.sh.

# Loaded by name: what is stacked on top of hardware, or must not depend on luck.
MODULES="virtio_pci virtio_blk virtio_net virtio_scsi sd_mod ahci nvme efivarfs raid1 dm_mod dm_thin_pool \
xfs ext4 vfat nls_ascii nls_cp437 nls_utf8 crc32c_generic libcrc32c"

# load_drivers: everything that is plugged in, three times, since a bus shows its devices only once it has a driver.
load_drivers() {
    for _ in 1 2 3; do
        find /sys/devices -name modalias -exec cat {} + 2>/dev/null | sort -u >"$RUN/aliases"
        cmp -s "$RUN/aliases" "$RUN/aliases.before" && break
        xargs modprobe -a -b -q <"$RUN/aliases" 2>/dev/null
        cp "$RUN/aliases" "$RUN/aliases.before"
    done
    for module in $MODULES; do
        modprobe -q "$module" 2>/dev/null
    done
}

# read_command_line: MASTER, MAC, and the token into a file that curl reads.
read_command_line() {
    umask 077
    for word in $(cat /proc/cmdline); do
        case $word in
            vcrecon.master=*) MASTER=${word#*=} ;;
            vcrecon.mac=*) MAC=$(echo "${word#*=}" | tr 'A-F-' 'a-f:') ;;
            vcrecon.token=*) echo "Authorization: Bearer ${word#*=}" >"$RUN/authorization" ;;
        esac
    done
    umask 022
    export MASTER MAC
}

link_of_mac() {
    for link in /sys/class/net/*; do
        [ "$(cat "$link/address")" = "$1" ] && [ -e "$link/device" ] && basename "$link" && return
    done
    return 1
}

has_link() {
    link_of_mac "$MAC" >/dev/null
}

# start_network: an address by DHCP on the interface that the machine booted from. Tries for as long as it takes:
# without a network there is nobody to tell.
start_network() {
    until until_true 30 has_link; do
        say "no network interface has the MAC $MAC; there are: $(cat /sys/class/net/*/address | tr '\n' ' ')"
    done
    link=$(link_of_mac "$MAC")
    ip link set lo up
    ip link set "$link" up
    say "network: $link"
    until udhcpc -i "$link" -n -t 20 -T 1 -A 3 -s /vcrecon/udhcpc.sh >"$RUN/udhcpc.log" 2>&1; do
        say "no answer from a DHCP server on $link yet"
    done
    say "network: $(ip -4 -o addr show dev "$link" | awk '{ print $4 }')"
}
