#!/bin/bash
# Loads plant.nft and hub.nft in two network namespaces joined by a cable, and tries who reaches what.
# As root; needs ip, nft, setpriv and python3. Touches no rule and no interface of the machine itself,
# takes about half a minute, and removes what it made. Exit status 0: everything was as it should be.
set -euo pipefail
export PATH=/usr/sbin:/usr/bin:/sbin:/bin # root's own Python may lie where other users cannot read

here=$(cd "$(dirname "$0")" && pwd)
plant=fedsparse-plant-$$ hub=fedsparse-hub-$$
gateway=64001 other=64002 hub_user=64003 # user ids that need no account
hub_address=192.0.2.10 hub_port=9443     # as in plant.nft
plant_loopback=127.87.0.2 hub_loopback=127.87.0.1 # the same
elsewhere=192.0.2.11 admin=192.0.2.200 plant_address=192.0.2.1
scratch=$(mktemp -d)
children=() failures=0

clean_up() {
    for child in "${children[@]}"; do kill "$child" 2>/dev/null || true; done
    wait
    for space in "$plant" "$hub"; do ip netns del "$space" 2>/dev/null || true; done
    rm -rf "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

inside() { ip netns exec "$@"; }
as() { # SPACE USER COMMAND...
    local space=$1 user=$2
    shift 2
    inside "$space" setpriv --reuid="$user" --regid="$user" --clear-groups -- "$@"
}
expect() { # yes|no, what for people, command
    local wanted=$1 what=$2 got=no
    shift 2
    if "$@" >"$scratch/out" 2>&1; then got=yes; fi
    if [ "$got" = "$wanted" ]; then
        printf 'ok    %-3s %s\n' "$got" "$what"
    else
        printf 'WRONG %-3s %s\n' "$got" "$what"
        sed 's/^/        /' "$scratch/out"
        failures=$((failures + 1))
    fi
}
dial() { # SPACE USER ADDRESS PORT [SOURCE]; a dropped packet shows as no answer within a second
    as "$1" "$2" python3 -c '
import socket, sys
address, port, *source = sys.argv[1:]
socket.create_connection((address, int(port)), 1.0, (source[0], 0) if source else None).close()' "${@:3}"
}
refused() { # the same; true only where it is told so at once
    local told
    told=$(dial "$@" 2>&1) && return 1
    echo "$told"
    grep -q ConnectionRefusedError <<<"$told"
}
counter() { # SPACE TABLE NAME packets|bytes
    inside "$1" nft list counter inet "$2" "$3" | sed -n "s/.*\b$4 \([0-9]*\).*/\1/p"
}
listen() { # SPACE USER ADDRESS:PORT...
    # "exec", so that the process id to kill is that of the listener and not of a shell that waits for it.
    exec ip netns exec "$1" setpriv --reuid="$2" --regid="$2" --clear-groups -- timeout 120 python3 -c '
import socketserver, sys, threading
class Drain(socketserver.BaseRequestHandler):
    def handle(self):
        while self.request.recv(65536):
            pass
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address, request_queue_size, daemon_threads = True, 64, True
for place in sys.argv[1:]:
    host, port = place.split(":")
    threading.Thread(target=Server((host, int(port)), Drain).serve_forever).start()
print("listening", flush=True)' "${@:3}" >"$scratch/listening.${#children[@]}" &
    children+=($!)
    for _ in $(seq 100); do
        grep -qs listening "$scratch/listening.$((${#children[@]} - 1))" && return
        sleep 0.1
    done
    echo "error: could not listen on ${*:3}" >&2
    exit 1
}
send() { # 100 kB to the hub, as the gateway's user
    as "$plant" $gateway python3 -c '
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 1.0) as link:
    link.sendall(bytes(100_000))' $hub_address $hub_port
}
crowd() { # more connections than one address may have, all held open; says how many there were
    as "$plant" $gateway python3 -c '
import socket, sys
links = []
try:
    while len(links) < 40:
        links.append(socket.create_connection((sys.argv[1], int(sys.argv[2])), 1.0))
except OSError:
    pass
print(len(links))' $hub_address $hub_port
}
at_least() { [ "$1" -ge "$2" ]; }

ip netns add "$plant"
ip netns add "$hub"
ip -n "$plant" link add plant0 type veth peer name hub0 netns "$hub"
ip -n "$plant" address add $plant_address/24 dev plant0
for address in $hub_address $elsewhere $admin; do ip -n "$hub" address add "$address/24" dev hub0; done
for link in lo plant0; do ip -n "$plant" link set $link up; done
for link in lo hub0; do ip -n "$hub" link set $link up; done

sed "s/\"fedsparse-plant\"/$gateway/" "$here/plant.nft" >"$scratch/plant.nft"
sed "s/\"fedsparse-hub\"/$hub_user/" "$here/hub.nft" >"$scratch/hub.nft"
listen "$hub" 0 $hub_address:$hub_port $hub_address:9444 $elsewhere:$hub_port
listen "$plant" $gateway $plant_loopback:40000 $plant_address:40001
listen "$plant" $other $plant_loopback:40002 127.0.0.1:40000 127.0.0.1:3128
listen "$hub" $hub_user $hub_loopback:40000
listen "$hub" $other $hub_loopback:40002 127.0.0.1:40000
listen "$plant" 0 $plant_address:22

echo "before any rule"
expect yes "the gateway's user reaches another port" dial "$plant" $gateway $hub_address 9444
expect yes "the gateway's user reaches another address" dial "$plant" $gateway $elsewhere $hub_port
expect yes "another user reaches the hub" dial "$plant" $other $hub_address $hub_port
expect yes "a local proxy is there" dial "$plant" $gateway 127.0.0.1 3128
expect yes "another user reaches the gateway's port on loopback" dial "$plant" $other $plant_loopback 40000
expect yes "another user reaches SuperLink's" dial "$hub" $other $hub_loopback 40000
expect yes "the hub's user dials out" dial "$hub" $hub_user $plant_address 22

inside "$plant" nft -f "$scratch/plant.nft"
inside "$hub" nft -f "$scratch/hub.nft"

echo "with plant.nft"
expect yes "the gateway's user reaches the hub" dial "$plant" $gateway $hub_address $hub_port
expect no "... another port of the hub" dial "$plant" $gateway $hub_address 9444
expect no "... another address" dial "$plant" $gateway $elsewhere $hub_port
expect no "... a proxy on this machine" dial "$plant" $gateway 127.0.0.1 3128
expect no "... another user's service on loopback" dial "$plant" $gateway 127.0.0.1 40000
expect no "... what another user has put on the plant's own address" dial "$plant" $gateway $plant_loopback 40002
expect yes "... its own processes there" dial "$plant" $gateway $plant_loopback 40000
expect yes "root reaches them" dial "$plant" 0 $plant_loopback 40000
expect yes "another user is refused by them at once" refused "$plant" $other $plant_loopback 40000
expect yes "... and reaches a service of its own on loopback" dial "$plant" $other 127.0.0.1 40000
expect no "another user reaches the hub" dial "$plant" $other $hub_address $hub_port
expect no "... another port of the hub" dial "$plant" $other $hub_address 9444
expect no "... another address" dial "$plant" $other $elsewhere $hub_port
expect no "root reaches the hub's port" dial "$plant" 0 $hub_address $hub_port
expect yes "root, for the machine itself, reaches another port" dial "$plant" 0 $hub_address 9444
expect no "the hub reaches a port that the gateway's user has opened" dial "$hub" 0 $plant_address 40001
expect no "... the same from the administrators' network" dial "$hub" 0 $plant_address 40001 $admin
expect no "... SSH" dial "$hub" 0 $plant_address 22 $hub_address
expect yes "an administrator reaches SSH" dial "$hub" 0 $plant_address 22 $admin

before=$(counter "$plant" fedsparse fedsparse_hub bytes)
expect yes "100 kB go to the hub" send
sleep 0.5
after=$(counter "$plant" fedsparse fedsparse_hub bytes)
expect yes "the counter fedsparse_hub grew by at least as much: $((after - before)) bytes" \
    at_least $((after - before)) 100000
for name in fedsparse_refused fedsparse_refused_others fedsparse_refused_in fedsparse_refused_local; do
    count=$(counter "$plant" fedsparse $name packets)
    expect yes "the counter $name has counted: $count packets" at_least "$count" 1
done
inside "$plant" nft -f "$scratch/plant.nft"
expect yes "loading the rules again keeps the counters" \
    at_least "$(counter "$plant" fedsparse fedsparse_hub bytes)" "$after"

echo "with hub.nft"
limit=$(sed -n 's/.*ct count over \([0-9]*\).*/\1/p' "$here/hub.nft")
count=$(crowd)
expect yes "of 40 connections from one address, $count are let in" test "$count" -ge 1 -a "$count" -le "$limit"
expect yes "the counter fedsparse_hub_crowded has counted" \
    at_least "$(counter "$hub" fedsparse_hub fedsparse_hub_crowded packets)" 1
ip -n "$plant" address add 203.0.113.9/32 dev plant0
ip -n "$hub" route add 203.0.113.9/32 dev hub0
expect no "an address that is none of the plants' reaches the hub" \
    dial "$plant" $gateway $hub_address $hub_port 203.0.113.9
expect yes "the counter fedsparse_hub_refused has counted" \
    at_least "$(counter "$hub" fedsparse_hub fedsparse_hub_refused packets)" 1
expect no "the hub's user dials out" dial "$hub" $hub_user $plant_address 22 $admin
expect yes "... and reaches SuperLink on loopback" dial "$hub" $hub_user $hub_loopback 40000
expect yes "root reaches SuperLink" dial "$hub" 0 $hub_loopback 40000
expect yes "another user is refused by SuperLink at once" refused "$hub" $other $hub_loopback 40000
expect yes "... and reaches a service of its own on loopback" dial "$hub" $other 127.0.0.1 40000
expect no "the hub's user is answered by what another user has put on SuperLink's address" \
    dial "$hub" $hub_user $hub_loopback 40002
expect yes "the counter fedsparse_hub_local has counted" \
    at_least "$(counter "$hub" fedsparse_hub fedsparse_hub_local packets)" 2

[ $failures -eq 0 ] || { echo "$failures not as they should be"; exit 1; }
echo "all as it should be"
