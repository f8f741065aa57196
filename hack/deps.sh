#!/bin/bash
# Installs the programs that tests run besides ours, where they are missing:
# with apt, when root. Otherwise it names them, and the tests that need one
# that is missing say so. "deps.sh bench" adds the programs that we are
# measured beside.
set -euo pipefail

# program:package
wanted=(dig:bind9-dnsutils nslookup:bind9-dnsutils host:bind9-host curl:curl ip:iproute2 python3:python3 git:git nft:nftables iptables:iptables
	node:nodejs nsenter:util-linux chattr:e2fsprogs patch:patch busybox:busybox-static h2load:nghttp2-client)
# What some releases of Debian do not have: tests that want one skip then.
optional=(chromium-headless-shell)
if [ "${1-}" = bench ]; then
	wanted+=(knotd:knot nsd:nsd gcc:gcc taskset:util-linux nginx:nginx-light haproxy:haproxy wrk:wrk)
fi

missing=() packages=()
for w in "${wanted[@]}"; do
	if ! command -v "${w%%:*}" >/dev/null; then
		missing+=("${w%%:*}")
		packages+=("${w##*:}")
	fi
done
for o in "${optional[@]}"; do
	command -v "$o" >/dev/null || missing+=("$o")
done
[ ${#missing[@]} = 0 ] && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
	echo "deps: please install ${missing[*]} (Debian: apt-get install ${packages[*]} ${optional[*]})" >&2
	exit 0
fi
echo "deps: installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
# Servers among them are not to be started by their installation.
if [ ! -e /usr/sbin/policy-rc.d ]; then
	printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
	chmod 755 /usr/sbin/policy-rc.d
	trap 'rm -f /usr/sbin/policy-rc.d' EXIT
fi
apt-get -qq update </dev/null >/dev/null
if [ ${#packages[@]} != 0 ]; then
	apt-get -qq install -y --no-install-recommends "${packages[@]}" </dev/null >/dev/null
fi
for o in "${optional[@]}"; do
	command -v "$o" >/dev/null || apt-get -qq install -y --no-install-recommends "$o" </dev/null >/dev/null 2>&1 ||
		echo "deps: $o is not to be had here; tests that want it skip" >&2
done
