#!/bin/sh
# Debian's Prometheus and Alertmanager for the tests, without root: fetched and unpacked into
# the folder that is given, unless their programs are on the PATH already. apt verifies the
# packages' signatures as ever. Nothing is installed, and nothing of the system's apt is written.
set -u
folder=$1
programs="prometheus promtool prometheus-alertmanager amtool"

missing=
for program in $programs; do
    command -v "$program" >/dev/null || missing="$missing $program"
done
[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then
    echo "Without apt nobody fetches$missing here: the tests that run them are skipped."
    exit 0
fi

echo "Fetching Debian's prometheus and prometheus-alertmanager into $folder (half a minute, once)"
rm -rf "$folder"
mkdir -p "$folder/apt/state/lists/partial" "$folder/apt/cache/archives/partial" || exit 0
cd "$folder" || exit 0
own="-o Dir::State=$PWD/apt/state -o Dir::State::status=/var/lib/dpkg/status
    -o Dir::Cache=$PWD/apt/cache -o APT::Sandbox::User=root -o Acquire::Languages=none"
wanted="prometheus prometheus-alertmanager"
# The system's lists may be empty, old or not ours to refresh: then we get our own.
# shellcheck disable=SC2086
if (apt-get -qq -o APT::Sandbox::User=root download $wanted 2>/dev/null ||
    (apt-get -qq $own update && apt-get -qq $own download $wanted)) &&
    for package in ./*.deb; do dpkg -x "$package" . || exit 1; done; then
    rm -rf apt ./*.deb var etc lib
    # Debian's Alertmanager reads its templates from /usr/share, which is not ours to write: here
    # it takes them from its working directory, by a path of the same length.
    LC_ALL=C sed -i 's#/usr/share/prometheus/alertmanager#/proc/self/cwd////////////////////#g' \
        usr/bin/prometheus-alertmanager
else
    echo "They could not be fetched: see above. The tests that run them will fail."
fi
