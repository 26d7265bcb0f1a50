"""The dashboard in real Chromium, in front of a real cluster: run by script/test-web."""
