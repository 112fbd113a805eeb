#!/bin/sh
# rootfs.sh OUTDIR: build hello and put it into OUTDIR/rootfs, a root file
# system to run. A static busybox of this machine comes along if there is one,
# so that there is a shell to look around with. GO, GOOS and GOARCH are obeyed.
set -eu

if [ $# -ne 1 ] || [ -z "$1" ]; then
	echo "usage: rootfs.sh OUTDIR" >&2
	exit 2
fi
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
mkdir -p -- "$1"
out=$(CDPATH='' cd -- "$1" && pwd)

# Built beside its place and renamed: a rootfs that is in use keeps its files.
new=$out/rootfs.new
rm -rf -- "$new"
mkdir -p "$new/bin" "$new/dev" "$new/etc" "$new/proc" "$new/root" "$new/run" "$new/sys" "$new/tmp" "$new/var"
chmod 755 "$new"
chmod 1777 "$new/tmp"
chmod 700 "$new/root"

(cd "$here" && CGO_ENABLED=0 ${GO:-go} build -trimpath -ldflags '-s -w' -o "$new/hello" .)

printf '%s\n' 'root:x:0:0:root:/root:/bin/sh' 'nobody:x:65534:65534:nobody:/:/bin/false' >"$new/etc/passwd"
printf '%s\n' 'root:x:0:' 'nogroup:x:65534:' >"$new/etc/group"

# Links only work with a busybox that needs no libraries and runs on the target.
busybox=/bin/busybox
target=$(cd "$here" && ${GO:-go} env GOOS)/$(cd "$here" && ${GO:-go} env GOARCH)
host=$(cd "$here" && ${GO:-go} env GOHOSTOS)/$(cd "$here" && ${GO:-go} env GOHOSTARCH)
if [ -x "$busybox" ] && [ "$target" = "$host" ] && ! ldd "$busybox" >/dev/null 2>&1; then
	cp -- "$busybox" "$new/bin/busybox"
	chmod 755 "$new/bin/busybox"
	for name in $("$busybox" --list); do
		[ "$name" = busybox ] || ln -sf busybox "$new/bin/$name"
	done
fi

rm -rf -- "$out/rootfs"
mv -- "$new" "$out/rootfs"
