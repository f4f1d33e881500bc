"""What a machine without a system meets: DHCP, the first loader, boot scripts, the installer's calls."""
