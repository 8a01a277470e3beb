#!/bin/sh
# box-setup.sh ROOT: makes a Vagrant box of a bootstrapped Debian in ROOT. mmdebstrap runs it as a hook.
set -eu
root=$1

echo dynmem-lab > "$root/etc/hostname"
echo '127.0.0.1 localhost dynmem-lab' > "$root/etc/hosts"
echo '/dev/vda1 / ext4 errors=remount-ro 0 1' > "$root/etc/fstab"

# What Vagrant expects of a box: its user, its well-known key (replaced where that matters), sudo.
chroot "$root" useradd --create-home --shell /bin/bash vagrant
echo 'vagrant ALL=(ALL) NOPASSWD: ALL' > "$root/etc/sudoers.d/vagrant"
chmod 440 "$root/etc/sudoers.d/vagrant"
install -d -m 700 "$root/home/vagrant/.ssh"
cat > "$root/home/vagrant/.ssh/authorized_keys"
chroot "$root" chown -R vagrant:vagrant /home/vagrant/.ssh
echo 'UseDNS no' > "$root/etc/ssh/sshd_config.d/lab.conf"

# Any network card, by DHCP; a clone of the box must not present itself as another one.
cat > "$root/etc/systemd/network/lab.network" << 'END'
[Match]
Name=en* eth*
[Network]
DHCP=yes
[DHCPv4]
ClientIdentifier=mac
END
: > "$root/etc/machine-id"
chroot "$root" systemctl enable -q systemd-networkd ssh
# The workloads start what they need. Timers would make idle guests busy.
chroot "$root" systemctl disable -q postgresql redis-server apt-daily.timer apt-daily-upgrade.timer \
    dpkg-db-backup.timer e2scrub_all.timer
chroot "$root" systemctl mask -q systemd-networkd-wait-online

# A small initrd, which emulated guests unpack sooner.
echo MODULES=list > "$root/etc/initramfs-tools/conf.d/lab"
printf '%s\n' virtio_pci virtio_blk ext4 >> "$root/etc/initramfs-tools/modules"
chroot "$root" update-initramfs -u > /dev/null

# The boot loader: GRUB's core goes before the first partition and finds kernel and initrd by these links.
ln -sf "$(cd "$root/boot" && ls vmlinuz-*)" "$root/boot/vmlinuz"
ln -sf "$(cd "$root/boot" && ls initrd.img-*)" "$root/boot/initrd"
cat > "$root/boot/early.cfg" << 'END'
set root=(hd0,msdos1)
linux /boot/vmlinuz root=/dev/vda1 rw console=ttyS0 quiet net.ifnames=0
initrd /boot/initrd
boot
END
chroot "$root" grub-mkimage -O i386-pc -p /boot/grub -c /boot/early.cfg -o /boot/core.img \
    biosdisk part_msdos ext2 linux
cp "$root/usr/lib/grub/i386-pc/boot.img" "$root/boot/boot.img"

# Not a byte of this machine's apt configuration stays in the box.
rm -rf "$root"/etc/apt/sources.list* "$root/etc/apt/apt.conf.d/99mmdebstrap" "$root"/var/lib/apt/lists/*
