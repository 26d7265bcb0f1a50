"""A whole cluster in one thread, from one seed: the production code of floors 0 to 4 under faults.

Only clocks, the random source, the links between peers and the workers that touch the disk are replaced. Checkers
watch every step and know nothing of the workload. `python -m tests.simulation run --seeds 0..100` runs many seeds,
`replay SEED --trace` one of them.
"""
