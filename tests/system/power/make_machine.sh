#!/usr/bin/env bash
# make_machine.sh ROOT SITE OUT: kernel, initrd, root.img and data.img of the machine that loses power.
#   ROOT  unpacked Debian with python3, SITE the libraries and raftberry: as script/build leaves them.
# Nothing of the machine runs here: packages are only unpacked, file systems made from directories.
set -euo pipefail
here=$(realpath "$(dirname "$0")")
debian=$(realpath "$1")
site=$(realpath "$2")
mkdir -p "$3"
cd "$3"

if [ ! -e kernel/.complete ]; then
  rm -rf kernel
  mmdebstrap --quiet --variant=extract --include=linux-image-amd64,busybox-static bookworm kernel
  touch kernel/.complete
fi
cp kernel/boot/vmlinuz-* vmlinuz
"$here/../make_initrd.sh" kernel "$here/init" initrd.gz

rm -rf root
cp -a "$debian" root
rm -rf root/src root/tmp/* root/var/cache root/usr/share/doc root/usr/share/locale
mkdir -p root/var/lib/raftberry root/run root/sys
cp -a "$site" root/site
cp "$here/guest.py" root/guest.py
echo "0123456789abcdef0123456789abcdef" > root/etc/machine-id
printf 'root:x:0:0::/:/bin/sh\n' > root/etc/passwd
printf '127.0.0.1 localhost\n' > root/etc/hosts
rm -f root.img data.img
mke2fs -q -t ext4 -d root root.img 640M
rm -rf empty && mkdir -m 0700 empty
mke2fs -q -t ext4 -d empty data.img 256M
