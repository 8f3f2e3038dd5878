#!/bin/sh
# Fetches the whole of Fashion-MNIST (60,000 training and 10,000 test images) from
# the Debian package that carries it, and checks it:
#
#	models/fashion-mnist/fetch.sh data/fashion-mnist
set -eu

package=dataset-fashion-mnist
version=0.0~git20200523.55506a9-1

fail() {
	echo "fetch.sh: $*" >&2
	exit 1
}

# verify checks the four files of the folder $1.
verify() {
	(cd "$1" && sha256sum --check --quiet) <<-'SUMS'
		cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa  t10k-images-idx3-ubyte.gz
		8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05  t10k-labels-idx1-ubyte.gz
		b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7  train-images-idx3-ubyte.gz
		0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056  train-labels-idx1-ubyte.gz
	SUMS
}

[ $# -eq 1 ] || fail "usage: fetch.sh FOLDER"
if [ -d "$1" ] && verify "$1" >/dev/null 2>&1; then
	exit
fi
for tool in apt-get dpkg-deb sha256sum; do
	command -v "$tool" >/dev/null ||
		fail "$tool not found; elsewhere than on Debian and its kin, put the four .gz files of Fashion-MNIST into $1"
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Started by root, apt-get would download as a user that cannot write here.
(cd "$work" && apt-get -q -o "APT::Sandbox::User=$(id -un)" download "$package=$version") ||
	fail "apt-get cannot download $package=$version; 'apt-get update' may help"
dpkg-deb -x "$work"/*.deb "$work/unpacked"
mkdir -p "$1"
cp "$work/unpacked/usr/share/datasets/fashion-mnist/"*.gz "$1"
verify "$1" || fail "the files in $1 are not Fashion-MNIST"
