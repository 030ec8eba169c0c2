"""The proofs: each test states in one sentence the fact that it proves."""
