"""Floor 3: Raft by PySyncObj behind a guard. The only package that imports pysyncobj.

`Engine` is what floor 4 drives; the hazards' numbers (H1 to H22) are explained in docs/hazards.md.
"""

from appliance.consensus.engine import Engine
from appliance.consensus.events import ConsensusEvent, EventLog
from appliance.consensus.log import LogImage
from appliance.consensus.options import ConsensusOptions

__all__ = ["ConsensusEvent", "ConsensusOptions", "Engine", "EventLog", "LogImage"]
