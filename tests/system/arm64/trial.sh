# Runs in the machine, on its console. Each line that script/build-arm64 prints begins with "trial: ".
export PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LANG=C.UTF-8
say() { sed 's/^/trial: /' <<<"$*"; }
finish() { say "$*"; sync; systemctl poweroff; exit; }
show() { say "\$ $*"; "$@" 2>&1 | sed 's/^/trial: /'; }
# Emulated, and beside other work: what takes seconds on a Pi takes minutes here.
wait_for() {
  local what=$1; shift
  for ((n = 0; n < 1200; n++)); do "$@" >/dev/null 2>&1 && return; sleep 1; done
  systemctl status raftberry --no-pager -l | sed 's/^/trial: /'
  journalctl -u raftberry --no-pager -n 40 -o cat | sed 's/^/trial: /'
  finish "FAILED: not within 20 minutes: $what"
}
restarts() { systemctl show raftberry -p NRestarts --value; }
has_restarted() { [ "$(restarts)" -gt "$1" ] && systemctl is-active -q raftberry; }
has_been_ended() { [ "$(restarts)" -gt "$1" ]; }
has_reading() { raftberry latest --timeout 60s | grep -q 21.5; }

say "$(uname -srm), $(systemctl is-system-running --wait), $(awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo) MB"
ip link set lo up
# Fifty times slower than a Pi: systemd must not take it for hung.
mkdir -p /etc/systemd/system/raftberry.service.d
printf '[Service]\nTimeoutStartSec=1800\nTimeoutStopSec=1800\nWatchdogSec=600\n' \
  > /etc/systemd/system/raftberry.service.d/emulated.conf
apt-get install -y -q /srv/raftberry_*.deb 2>&1 | tail -n 4 | sed 's/^/trial: /'
wait_for "the service is active" systemctl is-active -q raftberry
show raftberry version
wait_for "it takes a write" raftberry write greenhouse temperature 21.5 --timeout 60s
show raftberry latest --timeout 60s
show systemctl status raftberry --no-pager -l
show sh -c 'ls /dev/shm | wc -l'

before=$(restarts)
say "systemctl kill -s KILL raftberry"
systemctl kill -s KILL raftberry
wait_for "systemd restarts it" has_restarted "$before"
wait_for "the reading is still there" has_reading
show raftberry latest --timeout 60s
pid=$(systemctl show raftberry -p MainPID --value)
show sh -c "nsenter -t $pid -m ls /dev/shm; nsenter -t $pid -m df -h /dev/shm | tail -n 1; ls /dev/shm | wc -l"

# A limit that is too small, for real: containers have no memory controller.
group=/sys/fs/cgroup$(systemctl show raftberry -p ControlGroup --value)
say "memory: at rest $(($(cat "$group/memory.current") >> 20)) MB, of which programs and unpacked libraries \
$(awk '/^(anon|shmem) / { sum += $2 } END { print int(sum / 1048576) }' "$group/memory.stat") MB; limits: high \
$(($(cat "$group/memory.high") >> 20)) MB, max $(($(cat "$group/memory.max") >> 20)) MB"
before=$(restarts)
say "systemctl set-property --runtime raftberry MemoryHigh=infinity MemoryMax=64M MemorySwapMax=0"
systemctl set-property --runtime raftberry MemoryHigh=infinity MemoryMax=64M MemorySwapMax=0
wait_for "it is ended and tried again" has_been_ended "$before"
show journalctl -u raftberry --no-pager -n 6 -o cat
systemctl set-property --runtime raftberry MemoryHigh=60% MemoryMax=75% MemorySwapMax=infinity
wait_for "it is back with its own limits" systemctl is-active -q raftberry
wait_for "the reading is still there" has_reading
show raftberry latest --timeout 60s
show journalctl -u raftberry --no-pager -n 12
finish "DONE: after $(cut -d. -f1 /proc/uptime) s"
