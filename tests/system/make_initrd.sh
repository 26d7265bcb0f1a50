#!/usr/bin/env bash
# make_initrd.sh KERNEL INIT OUT: a small initrd, without running anything of the machine it is for.
#   KERNEL  unpacked linux-image and busybox-static, of any architecture; INIT its /init. Kernel modules for virtio's
#   disks and network and for ext4 are in /modules, in the order in which they depend on each other.
set -euo pipefail
kernel=$(realpath "$1")
init=$(realpath "$2")
out=$(realpath "$3")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
version=$(ls "$kernel/lib/modules")
depmod -b "$kernel" "$version"
mkdir -p initrd/{bin,proc,sys,dev,root,modules}
cp "$kernel/bin/busybox" initrd/bin/
for name in sh mount insmod switch_root sleep ip; do ln -s busybox initrd/bin/$name; done
for module in virtio_mmio virtio_pci virtio_blk virtio_net crc32c_generic ext4; do
  modprobe -d "$kernel" -S "$version" --show-depends $module | sed -n 's/^insmod //p'
done | awk '!seen[$1]++ { print $1 }' > modules
while read -r file; do
  cp "$file" initrd/modules/
  basename "$file" >> initrd/modules/order
done < modules
cp "$init" initrd/init
chmod +x initrd/init
(cd initrd && find . | LC_ALL=C sort | cpio -o -H newc --quiet | gzip -1) > "$out"
