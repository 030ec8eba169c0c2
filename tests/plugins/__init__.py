"""Plugins of pytest that this project's own tests need."""
