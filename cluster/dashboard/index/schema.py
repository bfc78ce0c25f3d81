"""The tables of the dashboard's index, a disposable SQLite file.

Rows of a Parquet file have ids (file << 32) + position, positions in order of dispatch, so that everything of a file is
one range of ids and whatever came from it is removed by two bounds. What filters and sorts compare lies a second time
as columns: `chunks` has a NumPy array for each file and name, which is a thousand times less work to scan than rows.
"""

SCHEMA_VERSION = 9
"""Raised with every change of the tables or of what is computed into them: an older index is removed and made anew."""

FILE_SHIFT = 32

TABLES = """
create table meta (key text primary key, value text) without rowid;

-- A rollouts file; one that cannot be read has a problem and no rows.
create table files (
    id integer primary key autoincrement, -- never used twice: caches are keyed by it
    phase text, step integer, name text unique, inode integer, size integer, mtime_ns integer,
    num_rows integer, num_groups integer, problem text
);
create table groups (
    id integer primary key, -- (file << 32) + number in order of dispatch
    phase text, step integer, group_id text, uid text, epoch integer, task text, worker text, attempt integer,
    mixed_attempts integer, question text, truth text, trained integer,
    num_rows integer, num_scored integer, num_judged integer, num_correct integer, reward_sum real
);
create index groups_by_group_id on groups (group_id);
create index groups_by_uid on groups (uid, phase, num_scored, num_judged, num_correct, reward_sum);
create table rows (
    id integer primary key, -- (file << 32) + position
    row integer,            -- in the Parquet file
    grp integer,            -- number of its group in the file
    sample_index integer, reward real, components text, advantage real, correct integer, outcome text, finish text,
    length integer, entropy real, max_gap real, k3 real, repetition real, lag integer, answer text, preview text,
    turns integer, tool_calls integer, episode_outcome text -- null for a single answer
);
create table chunks (id integer primary key, file integer, name text, data blob);
create index chunks_by_name on chunks (name, file);
-- Completions in lower case, one after the other: of a part of a file, and the positions of its rows.
create table texts (id integer primary key, file integer, positions blob, offsets blob, data blob);
create index texts_by_file on texts (file);
-- Words that columns hold as numbers: outcomes, endings, answers, ends of episodes.
create table words (id integer primary key, value text unique);

-- How far a log was read; `tail` are the bytes before the offset, by which a rewritten file is known.
create table logs (name text primary key, inode integer, offset integer, lines integer, tail blob) without rowid;
create table log_problems (log text, line integer, message text);

create table spans (
    id integer primary key, kind text, actor text, start_s real, end_s real, step integer, tokens integer,
    policy_version integer, num_groups integer
);
create index spans_by_start on spans (start_s, end_s);
create index spans_by_actor on spans (actor, kind, start_s, end_s, tokens, num_groups, policy_version);
create table span_details (id integer primary key, ids text, extra text);

create table ledger (
    id integer primary key, -- in order of the first line
    group_id text unique, state text, attempt integer, worker text, step integer, reason text,
    first_s real, last_s real, times_consumed integer
);
-- Lines that change no group: late results that were refused, checkpoints that hold what was consumed.
create table ledger_events (id integer primary key, event text, group_id text, step integer, checkpoint text);
create table ledger_lines (id integer primary key, entry integer, offset integer);
create index ledger_lines_by_entry on ledger_lines (entry);
"""
