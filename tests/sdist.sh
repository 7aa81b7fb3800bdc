#!/bin/sh
# Build the source distribution in dist/ and check what a packager does with it: install it without a
# network into an environment that has its requirements, start the server and store a pixel.
# Root, or a kernel that allows user namespaces, is required to take the network away.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
work=$root/build/sdist
rm -rf "$work"
mkdir -p "$work"

requirements() {
    "${PYTHON:-python3}" -c 'import sys, tomllib
settings = tomllib.load(open(sys.argv[1], "rb"))
print(*settings["build-system"]["requires"], *settings["project"]["dependencies"], sep="\n")' "$1"
}

echo "building the source distribution"
"${PYTHON:-python3}" -m venv "$work/tools"
"$work/tools/bin/python" -m pip install --quiet --disable-pip-version-check build
"$work/tools/bin/python" -m build --sdist --outdir "$work" "$root" >"$work/build.log" 2>&1 ||
    { cat "$work/build.log" >&2; exit 1; }

echo "installing it without a network"
cd "$work" # where no module of the checkout can be imported
"${PYTHON:-python3}" -m venv venv
requirements "$root/pyproject.toml" >requirements.txt
venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
user=$([ "$(id -u)" -eq 0 ] || echo --map-root-user)
# shellcheck disable=SC2086 # no word if the user is root
unshare --net $user venv/bin/python -m pip install --quiet --disable-pip-version-check \
    --no-build-isolation --no-index pixelfast-*.tar.gz

echo "sending a pixel"
venv/bin/pixelfast serve --data-dir data --listen 127.0.0.1:0 --admin '' >serve.log 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null || true' EXIT
venv/bin/python - <<'END'
import re, subprocess, time, urllib.request

def pixelfast(*arguments):
    command = ["venv/bin/pixelfast", *arguments, "--data-dir", "data"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

end_s = time.monotonic() + 60
while not (found := re.search(r"listening on (\S+)", log := open("serve.log").read())):
    assert time.monotonic() < end_s, f"the server did not start:\n{log}"
    time.sleep(0.1)
url = pixelfast(
    "url", "track", "--event", "Installed", "--user-id", "1", "--base", f"http://{found[1]}"
)
with urllib.request.urlopen(url, timeout=20) as response:
    assert (response.status, response.read(6)) == (200, b"GIF89a"), response.status
stored = pixelfast("tail", "--no-follow", "--events", "1")
assert '"event":"Installed"' in stored, stored
END
kill "$server"
wait "$server"
mkdir -p "$root/dist"
mv pixelfast-*.tar.gz "$root/dist/"
echo "dist/$(basename "$root"/dist/pixelfast-*.tar.gz) can be installed and run"
