"""This machine: who it is, what it measures, how it talks to systemd. The only user of systemd and psutil."""
