"""Five real nodes under faults of the network, the disk and the process, for minutes.

What clients saw is recorded and handed, with the log that the nodes hold on their disks at the end, to the checkers of
the simulator. `python -m tests.cluster --minutes N --seed S` (script/test-cluster), or test_cluster.py in short.
"""
