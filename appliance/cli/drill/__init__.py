"""drill: what failures cost, measured under a steady load."""
