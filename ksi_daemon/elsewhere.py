"""Events of the original outside our areas: who asks for one is told so, and not only that it is unknown."""

from __future__ import annotations

from typing import Final

_ACTIONS: Final = {
    "agent": "negotiate_roles terminated update_composition",
    "completion": "failed",
    "composition": "compose create diff discover evaluate fork get index_file list merge profile prompt "
    "rebuild_index reload save select track_decision update validate",
    "correlation": "chain cleanup current stats trace tree",
    "dev": "checkpoint restore",
    "evaluation": "autonomous_improvement_cycle bootstrap_judges_v2 compare iterate_prompt judge_compare "
    "judge_prompt list list_improvement_cycles list_suites prompt prompt_patterns "
    "refresh_index",
    "event_log": "clear query stats",
    "injection": "batch clear execute inject list process_result queue status",
    "mcp": "clear_sessions status",
    "monitor": "clear_log get_correlation_chain get_events get_session_events get_stats query "
    "subscribe unsubscribe",
    "observation": "analyze analyze_patterns list query query_history ready replay restored subscribe "
    "unsubscribe",
    "observe": "begin end",
    "orchestration": "get_instance list_patterns load_pattern message request_termination start status "
    "terminate",
    "permission": "get_agent get_profile list_profiles remove_agent set_agent validate_spawn",
    "router": "list_transformers register_transformer unregister_transformer",
    "sandbox": "create get list remove stats",
    "state": "aggregate:count entity:bulk_create entity:create entity:delete entity:get "
    "entity:query entity:update get graph:traverse relationship:create relationship:delete "
    "relationship:query",
    "system": "context error_propagation",
    "tournament": "create evaluation_response register start_phase",
    "transformer": "get_usage list_by_pattern load_pattern reload_pattern unload_pattern",
    "transport": "create",
}
"""Namespace → actions, from the KSI contract's appendix A; the old command line asks for `state:get`."""

NOT_PROVIDED: Final = frozenset(
    f"{namespace}:{action}" for namespace, actions in _ACTIONS.items() for action in actions.split()
)


def hint(event: str) -> str | None:
    """What to tell who asks for an event of the original that nobody here answers; None for other names."""
    if event not in NOT_PROVIDED:
        return None
    return f"{event} is an event of the original daemon; this daemon does not provide that service"
