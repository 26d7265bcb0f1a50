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
version=$(ls kernel/lib/modules)
depmod -b kernel "$version"

# The initrd: busybox, and the modules for disks, network and ext4 in the order of their dependencies.
rm -rf initrd && mkdir -p initrd/{bin,proc,sys,dev,root,modules}
cp kernel/bin/busybox initrd/bin/
for name in sh mount insmod switch_root sleep ip; do ln -s busybox initrd/bin/$name; done
for module in virtio_pci virtio_blk virtio_net crc32c_generic ext4; do
  modprobe -d kernel -S "$version" --show-depends $module | sed -n 's/^insmod //p'
done | awk '!seen[$1]++ { print $1 }' > modules
while read -r file; do
  cp "$file" initrd/modules/
  basename "$file" >> initrd/modules/order
done < modules
cat > initrd/init <<'INIT'
#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
while read name; do insmod /modules/$name 2>/dev/null; done < /modules/order
until [ -b /dev/vdb ]; do sleep 0.05; done
mount -t ext4 -o ro /dev/vda /root
mount -t tmpfs tmpfs /root/tmp; mount -t tmpfs tmpfs /root/run
ip link set lo up; ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0; ip route add default via 10.0.2.2
mount -o move /dev /root/dev; mount -o move /proc /root/proc; mount -o move /sys /root/sys
exec switch_root /root /usr/bin/env PYTHONPATH=/site PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp \
  OPENBLAS_NUM_THREADS=1 /usr/bin/python3 /guest.py
INIT
chmod +x initrd/init
(cd initrd && find . | LC_ALL=C sort | cpio -o -H newc --quiet | gzip -1) > initrd.gz

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
