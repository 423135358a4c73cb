"""What happens on a client: data, models, local training, and the work and update types."""

import os

# Flower reads these when it is first imported, so they are set before any module here can import it.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
