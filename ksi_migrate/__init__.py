"""The command with which an operator moves a running KSI daemon from its sync sides to its async ones."""
