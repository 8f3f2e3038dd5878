#!/usr/bin/env bash
# Measures this machine and writes FOLDER/report.md, with all files that it links beside it.
# It needs securenets and securenetsd in one folder, and no Go.
#
#     report.sh PROGRAMS FOLDER [--quick]    PROGRAMS is that folder
set -uo pipefail
bin=$(cd "${1:?the folder of securenets}" && pwd) || exit 2
out=$(mkdir -p "${2:?a folder for the report}" && cd "$2" && pwd) || exit 2
quick=${3:-}
case $quick in '' | --quick) ;; *) echo "report.sh: $quick is not --quick" >&2; exit 2 ;; esac
securenets=$bin/securenets
cd "$out"

status=0 stopped=
trap 'stopped=1' INT TERM
began=$(date -u '+%Y-%m-%d %H:%M:%S UTC') start=$SECONDS
body=

# part NAME TITLE COMMAND... runs a command and keeps what it prints in NAME.txt.
part() {
	local name=$1 title=$2 note=
	shift 2
	[ -z "$stopped" ] || return 0
	printf '\n== %s\n' "$title"
	if ! "$@" $quick | tee -i "$name.txt"; then
		note="**Failed or interrupted: these figures are incomplete.** "
		status=1
	fi
	body+=$(printf '\n## %s\n\n%s[%s.txt](%s.txt)' "$title" "$note" "$name" "$name")
	for f in "$name".json "$name".csv "$name"/*.md; do
		[ ! -e "$f" ] || body+=", [$f]($f)"
	done
	body+=$'\n'
}

# The files of an earlier report are removed. Any other folder that is not empty is refused.
title='# SecureNets on this machine'
if [ -n "$(ls -A)" ] && [ "$(head -n 1 report.md 2>/dev/null)" != "$title" ]; then
	echo "report.sh: $out is not empty and holds no report" >&2
	exit 2
fi
echo "$title" >report.md
for name in kernel device host throughput paper attacks; do
	rm -rf "$name" "$name".{txt,json,csv}
done

part kernel "The processor's products" "$securenets" bench kernel --json kernel.json --csv kernel.csv
if "$bin/securenetsd" devices 2>/dev/null | grep -q ready; then
	part device "The CUDA device's products" "$securenets" bench kernel --backend cuda --json device.json --csv device.csv
fi
part host "The host's passes" "$securenets" bench host --json host.json --csv host.csv
part throughput "Throughput, latency and cost" "$securenets" bench throughput --dir throughput
part paper "The paper" "$securenets" bench paper --dir paper
part attacks "Attacks on the masks" "$securenets" bench attacks --json attacks.json

{
	echo "$title"
	echo
	[ -z "$stopped" ] || echo "**Interrupted: what follows is incomplete.**"$'\n'
	echo "$began, $((SECONDS - start)) s${quick:+, $quick}. $("$securenets" version), $(uname -srm), $(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo 2>/dev/null | head -1), $(getconf _NPROCESSORS_ONLN) processors."
	echo "$body"
} >report.md
printf '\nThe report is %s. It took %d s.\n' "$out/report.md" $((SECONDS - start))
[ -z "$stopped" ] || exit 130
exit $status
