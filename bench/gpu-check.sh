#!/usr/bin/env bash
# Checks the CUDA backend on this machine's first device and measures it. It needs a driver,
# cuBLAS and the programs beside it, which `make gpu-build` makes, but no Go.
#
#     gpu-check.sh FOLDER    writes bench.json, bench.txt and the logs there
set -euo pipefail
out=$(mkdir -p "${1:?a folder for results}" && cd "$1" && pwd)
cd "$(dirname "$0")"

# cuBLAS is often not where the loader looks.
if ! ldconfig -p | grep -q 'libcublas\.so'; then
	for d in /usr/local/cuda/lib64 /usr/local/cuda*/targets/x86_64-linux/lib; do
		if [ -e "$d/libcublas.so" ] || ls "$d"/libcublas.so.* >/dev/null 2>&1; then
			export LD_LIBRARY_PATH="$d${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
			break
		fi
	done
fi

echo '== devices'
./securenetsd devices | tee "$out/devices.txt"

echo '== on the card: conformance, the digest of every backend, and the products measured below'
./cuda.test -card -test.v -test.run 'Conformance|Meter' >"$out/conformance.log" 2>&1 || { tail -50 "$out/conformance.log"; exit 1; }
grep -E '^ *--- (PASS|FAIL|SKIP)|^(ok|PASS|FAIL)' "$out/conformance.log"

if command -v compute-sanitizer >/dev/null; then
	for tool in memcheck initcheck synccheck; do
		echo "== compute-sanitizer $tool"
		# Only the quick part of the suite: small operators on every path.
		compute-sanitizer --tool "$tool" --error-exitcode 9 ./cuda.test -card -test.run 'Conformance/.*/.*/(Digest|Batch)' >"$out/$tool.log" 2>&1 ||
			{ tail -40 "$out/$tool.log"; exit 1; }
		tail -1 "$out/$tool.log"
	done
else
	echo '== compute-sanitizer is missing: NOT RUN'
fi

echo '== bench'
./securenets bench kernel --backend cuda --json "$out/bench.json" --csv "$out/bench.csv" | tee "$out/bench.txt"
