#!/bin/sh
# provision.sh: in a guest, by `vagrant provision`: the agent, a swap file, and the workloads (`work`).
set -eu
export DEBIAN_FRONTEND=noninteractive

# The local box has all of these; a public one gets them now.
missing=
for package in python3-click python3-psutil python3-pyroute2 python3-structlog \
    g++ make postgresql postgresql-contrib redis-server redis-tools stress-ng; do
    dpkg-query --show --showformat='${db:Status-Status}' "$package" 2> /dev/null | grep -qx installed ||
        missing="$missing $package"
done
if [ -n "$missing" ]; then
    apt-get -qq update
    apt-get -qq -y install --no-install-recommends $missing > /dev/null
    systemctl disable --now -q postgresql redis-server
fi

[ -e /tmp/dynmem-agent.deb ] || {
    echo "dist/dynmem-agent.deb was not built, so there is no agent. On the host: make vagrant-lab" >&2
    exit 1
}
dpkg --install /tmp/dynmem-agent.deb > /dev/null
install -m 755 /tmp/work /usr/local/bin/work
rm /tmp/dynmem-agent.deb /tmp/work

if [ ! -e /swapfile ]; then
    fallocate -l 512M /swapfile
    chmod 600 /swapfile
    mkswap -q /swapfile
    echo '/swapfile none swap sw 0 0' >> /etc/fstab
fi
swapon --all

for _ in $(seq 60); do # its device's event starts it
    ! systemctl is-active --quiet dynmem-agent || break
    sleep 1
done
systemctl is-active --quiet dynmem-agent || {
    echo "The agent does not run. In the guest: systemctl status dynmem-agent, dynmem-agent doctor" >&2
    exit 1
}
echo "The agent runs; 512 MiB of swap; workloads: see \`work\`."
