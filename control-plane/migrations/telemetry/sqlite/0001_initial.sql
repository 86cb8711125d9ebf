-- The batch is the record: what arrived stays as it was signed.

-- Once-only: what is stored of each stream of each epoch.
create table ledger (
    agent_id text not null,
    epoch text not null,
    stream integer not null,
    -- All numbers up to this one are stored.
    up_to integer not null,
    primary key (agent_id, epoch, stream)
) strict;

-- Runs of numbers stored above up_to, both ends included; disjoint, with a hole between any two.
create table ledger_ahead (
    agent_id text not null,
    epoch text not null,
    stream integer not null,
    first integer not null,
    last integer not null,
    primary key (agent_id, epoch, stream, first)
) strict;

create table batches (
    agent_id text not null,
    epoch text not null,
    stream integer not null,
    seq integer not null,
    checksum integer not null,
    -- Wall time at the burst's start, as the agent says, and when it came.
    at integer not null,
    received_at integer not null,
    samples integer not null,
    -- Its time cannot be: kept, and used for nothing but the export of raw readings.
    absurd_time integer not null default 0,
    -- The batch that it leans on; its own number for a key batch.
    key_seq integer not null,
    envelope blob not null,
    primary key (agent_id, epoch, stream, seq)
) strict;
create index batches_by_time on batches (agent_id, at);

-- Batches that can't be decoded yet, or never: kept with the reason.
create table parked (
    agent_id text not null,
    epoch text not null,
    stream integer not null,
    seq integer not null,
    checksum integer not null,
    reason text not null,
    -- Whether a newer version may understand it, or the content is wrong.
    quarantined integer not null,
    -- The key batch it waits for.
    waits_for integer,
    received_at integer not null,
    envelope blob not null,
    primary key (agent_id, epoch, stream, seq, checksum)
) strict;
create index parked_waiting on parked (agent_id, epoch, waits_for);

-- By agent first: nobody moves another agent's miner. Readers match agent and miner both.
create table latest (
    agent_id text not null,
    miner_id text not null,
    -- The last poll, whatever came of it.
    at integer not null,
    received_at integer not null,
    poll text not null,
    -- When it last answered; all that follows is what it said then.
    answered_at integer,
    hashrate_hs real,
    power_w real,
    power_source text,
    hottest_c real,
    fan_max integer,
    fan_min integer,
    accepted integer,
    rejected integer,
    uptime_ms integer,
    is_mining integer,
    mode text,
    warnings integer,
    primary key (agent_id, miner_id)
) strict, without rowid;

-- Five minutes of one agent's site-wide sums.
create table site_rollups (
    agent_id text not null,
    bucket integer not null,
    samples integer not null,
    answered integer not null,
    hashrate_sum real not null,
    power_sum real not null,
    primary key (agent_id, bucket)
) strict;

-- Readings that will never come, as agents count them.
create table gaps (
    agent_id text not null,
    epoch text not null,
    cause text not null,
    -- Poll cycles concerned, both included; 0 where they are not known.
    first_cycle integer not null,
    last_cycle integer not null,
    -- Numbers of batches that will never come, both included; 0 for none.
    first_seq integer not null default 0,
    last_seq integer not null default 0,
    -- Polls that are missing, at most.
    polls integer not null,
    at integer not null,
    received_at integer not null,
    primary key (agent_id, epoch, cause, first_cycle, first_seq)
) strict;
