"""Power cuts: a node in a virtual machine whose disk forgets what was not flushed."""
