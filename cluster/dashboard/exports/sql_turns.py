"""The table `turns` of `shoal sql`: a row for each reply of an episode, out of the column `episode`."""

from collections.abc import Sequence

NEEDED = ("step", "group_id", "sample_index", "reward", "episode")
"""Columns of a table of rollouts."""

# A text that a model broke may have half of a surrogate pair, which DuckDB takes for no JSON.
_READ = r"""coalesce(
    try_cast(episode as json),
    try_cast(regexp_replace(episode, '\\u[dD][89a-fA-F][0-9a-fA-F]{2}', '\\ufffd', 'g') as json)
)"""


def turns_query(tables: Sequence[tuple[str, str]]) -> str:
    """Of (table, phase) pairs, each a table with the columns `NEEDED`."""
    rows = " union all ".join(
        f"select '{phase}' as phase, step, group_id, sample_index, reward, {_READ} as told from {table}"
        for table, phase in tables
    )
    return f"""
    select phase, step, group_id, sample_index, turn,
        cast(span -> '$[0]' as bigint) as first_token,
        cast(span -> '$[1]' as bigint) as end_token,
        cast(span -> '$[1]' as bigint) - cast(span -> '$[0]' as bigint) as tokens,
        nullif(span ->> '$[3]', '') as finish,
        spoken ->> '$.text' as text,
        json_array_length(spoken, '$.calls') as calls,
        array_to_string(
            list_transform(cast(spoken -> '$.heard' as json[]), lambda message: message ->> '$[1]'), chr(10)
        ) as heard,
        told ->> '$.outcome' as episode_outcome, reward
    from (
        select *,
            told -> concat('$.turns[', turn - 1, ']') as span,
            told -> concat('$.spoken[', turn - 1, ']') as spoken
        from (select *, unnest(range(1, 1 + cast(json_array_length(told, '$.turns') as bigint))) as turn from ({rows}))
    )
    """
