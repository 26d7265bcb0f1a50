"""Tests on real machines: systemd in containers, a virtual machine that loses power. Run by script/test-system."""
