#!/bin/sh
# collect.sh BINARY ROOT: installs BINARY as ROOT/usr/bin/headcount, with every
# library that it loads, their licences, a user to run it, the mail model and a
# configuration that serves it. Runs in the folder of the sources.
set -eu
binary=$1
root=$2

install -D -s "$binary" "$root/usr/bin/headcount"
# Lines such as "libz.so.1 => /lib/.../libz.so.1 (0x...)" and, for the loader,
# "/lib64/ld-linux-x86-64.so.2 (0x...)".
ldd "$binary" | grep -o '/[^ ]*' | while read -r library; do
  cp --parents -L "$library" "$root"
  # dpkg knows a library by the path that it was installed under.
  package=$(dpkg -S "$(realpath "$library")" "$library" 2>/dev/null |
    head -n 1 | cut -d: -f1)
  cp --parents -L "/usr/share/doc/$package/copyright" "$root"
done

mkdir -p "$root/etc"
echo 'headcount:x:65532:65532::/:/usr/sbin/nologin' >"$root/etc/passwd"
echo 'headcount:x:65532:' >"$root/etc/group"

install -D -m 644 docker/server.yaml "$root/etc/headcount/server.yaml"
install -D -m 644 LICENSE "$root/usr/share/doc/headcount/copyright"
mkdir -p "$root/models"
cp -r models/mailroom "$root/models/"
