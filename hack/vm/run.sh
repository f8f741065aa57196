#!/bin/bash
# Runs the tests of a package in a virtual machine, for kernel features that
# the kernel here may not have: hack/vm/run.sh [PACKAGE [TEST FLAGS…]].
#
# Debian's cloud kernel is downloaded with apt-get once (into .cache/vm), and
# packed with the package's test binary as /init; the binary loads the modules
# and runs its tests as process 1, see vm_linux_test.go there. Its last line is
# "VM EXIT n", which is the status of this script.
#
# The machine has one CPU, and its clock counts instructions: a second is as much
# work for the tests wherever they run, and waiting takes no time. A machine that
# is busy makes it late, not wrong. VM_CPUS=2 gives it CPUs side by side and the
# clock on the wall, to look for races. VM_TIMEOUT is when it is ended.
set -euo pipefail

cd "$(dirname "$0")/../.."
package=${1:-./view/vip/ipvs}
shift $(($# > 0 ? 1 : 0))
modules=${VM_MODULES:-dummy veth bridge br_netfilter nf_conntrack_netlink nft_masq nft_nat nft_chain_nat nft_ct nft_reject_ipv4 nft_reject_ipv6
	ip_vs_rr ip_vs_wrr ip_vs_lc ip_vs_wlc ip_vs_sh ip_vs_dh ip_vs_sed ip_vs_nq ip_vs_mh crc32c_generic}
timeout=${VM_TIMEOUT:-900}
cache=$PWD/.cache/vm
mkdir -p "$cache"

if ! command -v qemu-system-x86_64 >/dev/null || ! command -v cpio >/dev/null; then
	if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
		echo "vm: please install qemu-system-x86_64 and cpio (Debian: apt-get install qemu-system-x86 cpio)" >&2
		exit 1
	fi
	echo "vm: installing qemu-system-x86 and cpio" >&2
	export DEBIAN_FRONTEND=noninteractive
	apt-get -qq update </dev/null >/dev/null
	apt-get -qq install -y --no-install-recommends qemu-system-x86 cpio </dev/null >/dev/null
fi

if ! ls "$cache"/root/boot/vmlinuz-* >/dev/null 2>&1; then
	apt-get -qq update </dev/null >/dev/null 2>&1 || true # as another user the lists may be there already
	kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: //p' | head -n 1)
	if [ -z "$kernel" ]; then
		echo "vm: apt-get knows no linux-image-cloud-amd64; this needs Debian's package lists" >&2
		exit 1
	fi
	echo "vm: downloading $kernel" >&2
	(cd "$cache" && apt-get -qq download "$kernel" 2>/dev/null)
	rm -rf "$cache/unpacked"
	dpkg -x "$cache"/"$kernel"_*.deb "$cache/unpacked"
	rm -rf "$cache/root"
	mv "$cache/unpacked" "$cache/root"
	rm -f "$cache"/"$kernel"_*.deb
fi
vmlinuz=$(ls "$cache"/root/boot/vmlinuz-* | tail -n 1)
tree=$cache/root/lib/modules
[ -d "$tree" ] || tree=$cache/root/usr/lib/modules

find "$cache" -maxdepth 1 -name 'run.*' -mmin +600 -exec rm -rf {} + # of those that were killed
work=$(mktemp -d "$cache/run.XXXXXX")
machine=
trap '[ -z "$machine" ] || kill "$machine" 2>/dev/null || true; rm -rf "$work"' EXIT
trap 'exit 143' INT TERM HUP
mkdir -p "$work/root/modules" "$work/root/testdata"
CGO_ENABLED=0 ${GO:-go} test -vet=off -c -o "$work/root/init" "$package"
if [ -d "$package/testdata" ]; then
	cp -r "$package/testdata/." "$work/root/testdata/"
fi
printf '%s\n' "$@" >"$work/root/flags"

# A module after those that it depends on; what is built in has no file.
declare -A packed
number=100
pack() {
	local name=${1//-/_} file dependency
	[ -z "${packed[$name]:-}" ] || return 0
	packed[$name]=yes
	file=$(find "$tree" -name "$name.ko" -o -name "${name//_/-}.ko" | head -n 1)
	[ -n "$file" ] || return 0
	for dependency in $(tr '\0' '\n' <"$file" | sed -n 's/^depends=//p' | tr ',' ' '); do
		pack "$dependency"
	done
	cp "$file" "$work/root/modules/$number-$name.ko"
	number=$((number + 1))
}
pack crc32c_generic # libcrc32c asks for it by another name
for m in $modules; do
	pack "$m"
done
(cd "$work/root" && find . | cpio --quiet -o -H newc) >"$work/initrd"

cpus=(-accel tcg,thread=single -icount shift=0,sleep=off -smp 1)
if [ -n "${VM_CPUS:-}" ]; then
	cpus=(-accel tcg -smp "$VM_CPUS")
fi
# In the background, so that this script hears of signals; the limit holds also
# when nobody is left to wait.
timeout -k 5 "$timeout" qemu-system-x86_64 "${cpus[@]}" -m 768 -nodefaults -no-reboot -display none \
	-serial stdio -kernel "$vmlinuz" -initrd "$work/initrd" \
	-append 'console=ttyS0 quiet loglevel=3 panic=-1 random.trust_cpu=on mitigations=off init_on_alloc=0 apparmor=0 audit=0 selinux=0 rcupdate.rcu_expedited=1' \
	</dev/null > >(tr -d '\r' | tee "$work/log") &
machine=$!
wait "$machine" || true
machine=
wait # for what is on its way to the log
status=$(sed -n 's/^VM EXIT \([0-9]*\)$/\1/p' "$work/log" | tail -n 1)
if [ -z "$status" ]; then
	echo "vm: the machine ended, or was ended after $timeout s, before its tests did" >&2
	exit 1
fi
exit "$status"
