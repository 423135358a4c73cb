"""The container's health check: exits 0 if HEALTH_URL answers 200, or if there is no HEALTH_URL."""

import os
import ssl
import sys
import urllib.request

url, ca = os.environ.get("HEALTH_URL", ""), os.environ.get("CA")
if url:
    context = ssl.create_default_context(cafile=ca) if url.startswith("https") else None
    try:
        with urllib.request.urlopen(url, timeout=5, context=context) as answer:
            healthy = answer.status == 200
    except OSError as error:
        sys.exit(f"{url}: {error}")
    sys.exit(not healthy)
