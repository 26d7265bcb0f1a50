"""The commands of `raftberry`: one module for each group of them, imported when its command is used."""
