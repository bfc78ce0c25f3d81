"""A plan as text for people."""

from cluster.configuration.plan import MIB, Plan


def format_plan(plan: Plan) -> str:
    """Processes, memory and tokens, as aligned lines."""
    return "\n".join([*_process_lines(plan), "", *_memory_lines(plan), "", *_token_lines(plan)])


def _process_lines(plan: Plan) -> list[str]:
    lines = ["processes         count   CPUs   GPUs  threads"]
    for process in plan.processes:
        threads = str(process.threads) if process.threads else "auto"
        lines.append(f"  {process.role:<14} {process.count:>6} {process.cpus:>6g} {process.gpus:>6g} {threads:>8}")
    return [*lines, f"  asked of Ray: {plan.cpus:g} CPUs, {plan.gpus:g} GPUs"]


def _memory_lines(plan: Plan) -> list[str]:
    count = "unknown" if plan.num_parameters is None else f"{plan.num_parameters:,}"
    lines = [f"memory of one process (estimate; parameters: {count})"]
    for role in dict.fromkeys(entry.role for entry in plan.memory):
        entries = [entry for entry in plan.memory if entry.role == role]
        known = [entry.num_bytes for entry in entries if entry.num_bytes is not None]
        total = _size(sum(known)) if len(known) == len(entries) else f"at least {_size(sum(known))}"
        lines.extend(f"  {role:<8} {_size(entry.num_bytes):>12}  {entry.what}" for entry in entries)
        lines.append(f"  {role:<8} {total:>12}  in all")
    if plan.kv_cache_tokens is not None:
        lines.append(f"  a key/value cache holds {plan.kv_cache_tokens:,} tokens")
    if plan.checkpoint_bytes is not None:
        lines.append(f"  disk for checkpoints: {_size(plan.checkpoint_bytes)}")
    return lines


def _token_lines(plan: Plan) -> list[str]:
    tokens = plan.tokens
    return [
        "one training step, at most",
        f"  {tokens.completions:,} completions, {tokens.completion_tokens:,} sampled tokens",
        f"  {tokens.learner_tokens:,} tokens read by the learner, in {tokens.min_micro_batches:,} micro-batches a rank",
        "one evaluation, at most",
        f"  {tokens.eval_completions:,} completions, {tokens.eval_tokens:,} sampled tokens",
    ]


def _size(num_bytes: int | None) -> str:
    if num_bytes is None:
        return "unknown"
    mib = num_bytes / MIB
    return f"{mib / 1024:,.1f} GiB" if mib >= 1024 else f"{mib:,.1f} MiB"
