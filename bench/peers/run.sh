#!/usr/bin/env bash
# Builds what can be built here, and measures: `make bench-peers`. Arguments go to the program.
set -euo pipefail
cd "$(dirname "$0")"
root=$(cd ../.. && pwd)

# A peer is built in where a program with its header links.
has() { # header, libraries
	printf '#include <%s>\nint main() { return 0; }\n' "$1" | g++ -std=gnu++17 -x c++ - -o /dev/null -Wl,--no-as-needed $2 2>/dev/null
}
tags=()
add() { # tag, Debian package, header, libraries
	if has "$3" "$4"; then tags+=("$1"); else echo "$1 is left out: install $2 (make bench-peers-packages)"; fi
}
command -v g++ >/dev/null || echo "g++ is missing: without it there is gonum alone (make bench-peers-packages)"
add openblas libopenblas-dev cblas-openblas.h -lopenblas
add fflas fflas-ffpack fflas-ffpack/fflas-ffpack.h "-lopenblas -lgivaro -lgmpxx -lgmp"
add onednn libdnnl-dev oneapi/dnnl/dnnl.hpp -ldnnl

python=()
if interpreter=$(./venv.sh); then
	python=(-python "$interpreter")
else
	echo "onnxruntime is left out: python3 -m venv or pip could not install requirements.txt"
fi

joined=$(IFS=,; echo "${tags[*]}")
${GO:-go} vet -tags "$joined" .
${GO:-go} test -count=1 -tags "$joined" .
${GO:-go} build -trimpath -tags "$joined" -o "$root/bin/peers" .
exec env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 \
	"$root/bin/peers" -o "$root/out/peers.json" -securenets "$root/bin/securenets" "${python[@]}" "$@"
