# The install, from a token to a machine that can boot by itself. Run by init in a process group of its own.

. /vcrecon/common.sh
. /vcrecon/report.sh
. /vcrecon/hardware.sh
. /vcrecon/claim.sh
. /vcrecon/disks.sh
. /vcrecon/wipe.sh
. /vcrecon/volumes.sh
. /vcrecon/download.sh
. /vcrecon/bootloader.sh
. /vcrecon/context.sh

install_all() {
    step disks "looking at the disks"
    choose_disks
    refuse_unless_blank
    step partition "$(describe_disks)"
    make_blank
    partition_disks
    step raid "$(describe_raid)"
    make_arrays
    step lvm "volume group $VOLUME_GROUP"
    make_volumes
    step filesystems "ext4 for /boot, XFS for the system"
    make_filesystems
    step download "$ROOT_URL"
    fetch_root
    step unpack "checking the tree"
    check_root
    step boot-loader "$(firmware)"
    install_boot_loader
    step context "$NAME"
    lay_context
    finish_disks
    step "done" "installed"
}

start_network
claim_job
. "$RUN/job/job.env"
install_all
