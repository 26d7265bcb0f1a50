"""Floor 5: the web port - metrics, health, the dashboard and its API."""
