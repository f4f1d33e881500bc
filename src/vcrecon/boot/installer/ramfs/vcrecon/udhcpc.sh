#!/bin/sh
# What udhcpc calls when a lease changes: the address and the way out. The master is named by its address.

case $1 in
    deconfig)
        ip link set "$interface" up
        ;;
    bound | renew)
        [ -z "$(ip -4 -o addr show dev "$interface" | grep " $ip/")" ] || exit 0
        ip -4 addr flush dev "$interface"
        ip addr add "$ip/${mask:-24}" dev "$interface"
        for gateway in $router; do
            ip route add default via "$gateway" dev "$interface" && break
        done
        ;;
esac
