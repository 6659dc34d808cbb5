"""What tools/evidence.py runs: the list of experiments, their results, tables and plots.

The trainings themselves are started and watched by tools/quickstart/runs.py, which the programs of
that folder share.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tools" / "quickstart"))
