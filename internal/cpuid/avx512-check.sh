#!/bin/sh
# Runs test programs, static ones for linux/amd64, on an emulated processor with AVX-512
# (Ice Lake, by bochs), below a small system of a Debian kernel and busybox:
#
#	internal/cpuid/avx512-check.sh FOLDER SECONDS ARGUMENTS NAME...
#
# FOLDER holds each NAME.test, and everything is written there. ARGUMENTS are for all of
# them. It fails unless each passes TestTier with TIER=avx512, and then its tests, before
# so many SECONDS are over.
set -eu

kernel=linux-image-6.1.0-56-cloud-amd64
version=6.1.192-2 # another may do: LINUX=name=version

fail() {
	echo "avx512-check.sh: $*" >&2
	exit 1
}

[ $# -ge 4 ] || fail "usage: avx512-check.sh FOLDER SECONDS ARGUMENTS NAME..."
folder=$(cd "$1" && pwd) limit=$2 arguments=$3
shift 3
for tool in apt-get dpkg-deb bochs script xorriso busybox; do
	command -v "$tool" >/dev/null || fail "$tool not found; 'make check-avx512-packages' installs it"
done
cd "$folder"

package=${LINUX:-$kernel=$version}
if [ ! -e "linux-$package" ]; then
	rm -rf work "linux-"*
	mkdir work
	# Started by root, apt-get would download as a user that cannot write here.
	(cd work && apt-get -q -o "APT::Sandbox::User=$(id -un)" download "$package") ||
		fail "apt-get cannot download $package; 'apt-get update', or LINUX=name=version of another kernel, may help"
	dpkg-deb -x work/*.deb work/unpacked
	mv work/unpacked/boot/vmlinuz-* "linux-$package"
	rm -r work
fi

rm -rf root image serial.txt
mkdir -p root/bin root/dev root/proc root/sys root/tmp image
cp "$(command -v busybox)" root/bin/
ln -s busybox root/bin/sh
for name; do
	cp "$name.test" root/bin/
done
cat >root/init <<-INIT
	#!/bin/sh
	export PATH=/bin HOME=/tmp TIER=avx512
	busybox mount -t proc proc /proc
	busybox mount -t sysfs sys /sys
	busybox mount -t devtmpfs dev /dev
	cd /tmp
	for name in $*; do
		echo "== \$name: tier"
		\$name.test -test.v -test.run '^TestTier$'
		echo "== \$name: tests"
		\$name.test $arguments
		echo "== \$name: status \$?"
	done
	echo "== end"
	busybox sleep 1 # until all is sent
	busybox poweroff -f
INIT
chmod +x root/init
(cd root && busybox find . | busybox cpio -o -H newc | gzip -1) >image/initrd 2>/dev/null
cp "linux-$package" image/linux
cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 image/
# What this kernel would believe of this processor, and is not so: the size of compacted
# states and of protection keys (XSAVEC, XSAVES, PKU, OSPKE), and that short moves are fast
# (FSRM) where string instructions are not.
cat >image/isolinux.cfg <<-'CONFIG'
	default linux
	prompt 0
	label linux
	kernel linux
	append initrd=initrd console=ttyS0,115200 quiet nokaslr mitigations=off audit=0 panic=-1 random.trust_cpu=on clearcpuid=321,323,515,516,580 noxsaves vt.global_cursor_default=0
CONFIG
xorriso -as mkisofs -quiet -o boot.iso -b isolinux.bin -c boot.cat -no-emul-boot -boot-load-size 4 -boot-info-table image 2>/dev/null
# A second of the guest's is that many instructions. What is drawn, a cursor that blinks at
# least, goes to a terminal that nobody reads: it must not fill up.
cat >bochsrc <<-'CONFIG'
	cpu: model=corei7_icelake_u, count=1, ips=100000000
	megs: 1024
	romimage: file=/usr/share/bochs/BIOS-bochs-latest
	vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
	vga: extension=vbe, update_freq=1
	ata0: enabled=1
	ata0-master: type=cdrom, path=boot.iso, status=inserted
	boot: cdrom
	com1: enabled=1, mode=file, dev=serial.txt
	display_library: term
	clock: sync=none
	log: bochs.log
	panic: action=fatal
	error: action=report
	info: action=ignore
CONFIG
printf 'continue\nquit\n' >commands # bochs has a debugger, which waits for them

# It wants a terminal, and does not end for SIGTERM.
TERM=xterm script -qec "timeout -s KILL $limit bochs -f bochsrc -rc commands" /dev/null >bochs.txt 2>&1 </dev/null || true
[ -e serial.txt ] || fail "the emulated system did not start: see $folder/bochs.txt and bochs.log"
tr -d '\r' <serial.txt >output.txt
sed -n '/^== /,$p' output.txt
grep -q '^== end$' output.txt || fail "the emulated system ended early, or not within $limit s: see $folder/serial.txt"
for name; do
	sed -n "/^== $name: tier\$/,/^== $name: tests\$/p" output.txt | grep -q '^--- PASS: TestTier ' ||
		fail "$name: not the tier avx512, nothing is tested"
	grep -q "^== $name: status 0\$" output.txt || fail "$name: a test fails"
done
