"""How PyAirbyte behaves in a test; it reads this when it is imported."""

import os

os.environ["AIRBYTE_OFFLINE_MODE"] = "1"  # neither telemetry nor the registry of Airbyte's own connectors
os.environ["NO_LIVE_PROGRESS"] = "1"
