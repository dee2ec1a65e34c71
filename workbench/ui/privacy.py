"""Switches that keep the app from sending anything by itself; imported before gradio.

The Hub stays reachable: a person who names a Hub id wants it read. Nothing else asks the Hub.
"""

from __future__ import annotations

import os

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # no version check, no telemetry
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("GRADIO_RUN_HISTORY", "False")
