"""What must hold at every step, each in its own module, separate from the workload.

A checker that fails raises CheckFailed with its name. Ablation tests assert which one caught a broken guard.
"""

from tests.simulation.checkers.base import Checker
from tests.simulation.checkers.promises import PromiseChecker
from tests.simulation.checkers.raft import RaftChecker
from tests.simulation.checkers.state import StateChecker
from tests.simulation.checkers.votes import VoteChecker
from tests.simulation.checkers.watches import WatchChecker

__all__ = ["Checker", "PromiseChecker", "RaftChecker", "StateChecker", "VoteChecker", "WatchChecker"]
